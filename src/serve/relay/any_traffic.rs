//! Any bytes as the traffic of a kernel, of hostile daemons and of deaths, for the fuzz target and a
//! property test: nothing panics, nothing grows beyond what was asked for, no answer has a wrong owner,
//! and everybody is answered in the end.

use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::wire::{self, OUT_HEADER, set_u32, set_u64, u32_at, u64_at};
use crate::serve::relay::{BUFFER, JOURNAL_HEADER, Link, Record, Relay, Settings};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Steps of one run; what comes after them is left out.
const MOST_STEPS: usize = 2000;
/// Answers of an honest daemon that bring any run to its end.
const MOST_ANSWERS: usize = 100_000;

#[derive(Default)]
struct Ends {
    to_daemon: VecDeque<Vec<u8>>,
    to_kernel: Vec<Vec<u8>>,
    notes: usize,
    journal: Vec<u8>,
    in_flight: BTreeMap<u16, u64>,
    full: bool,
    killed: bool,
}

impl Link for Ends {
    fn to_daemon(&mut self, message: &[u8]) -> bool {
        assert!(message.len() <= BUFFER, "{} bytes", message.len());
        assert_eq!(u32_at(message, 0) as usize, message.len());
        if !self.full {
            self.to_daemon.push_back(message.to_vec());
        }
        !self.full
    }
    fn to_kernel(&mut self, message: &[u8]) {
        self.to_kernel.push(message.to_vec());
    }
    fn notify(&mut self, message: Vec<u8>) {
        assert_eq!(u32_at(&message, 0) as usize, message.len());
        self.notes += 1;
    }
    fn is_killed(&mut self, _tid: u32) -> bool {
        self.killed
    }
    fn record(&mut self, record: &Record<'_>) {
        record.encode(&mut self.journal);
    }
    fn taken(&mut self, slot: u16, unique: u64) {
        self.in_flight.insert(slot, unique);
    }
}

struct World {
    relay: Relay,
    ends: Ends,
    now: Instant,
    unique: u64,
    /// Requests without an answer.
    asked: BTreeSet<u64>,
    /// Requests that an earlier process of the volume may have answered already.
    twice: BTreeSet<u64>,
    /// Numbers that the kernel was given for nodes and handles.
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

/// The bytes that say what happens.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn take(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

/// Plays `data`, and panics where something does not hold.
pub fn check_traffic(data: &[u8]) {
    let mut world = World::new();
    let mut bytes = Bytes(data);
    for _ in 0..MOST_STEPS {
        let Some(step) = bytes.next() else {
            break;
        };
        match step % 12 {
            0..=3 => world.request(&mut bytes),
            4..=6 => world.answer(&mut bytes),
            7 => world.give(&mut bytes.take().to_vec()),
            8 => world.die(),
            9 => world.pass(Duration::from_millis(u64::from(bytes.byte()) * 100)),
            10 => world.interrupt(bytes.byte()),
            _ => match bytes.byte() % 4 {
                0 => world.restart(),
                1 => world.ends.killed = !world.ends.killed,
                2 => world.ends.full = true,
                _ => world.make_room(),
            },
        }
        world.look();
    }
    world.end();
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            relay: Relay::new(Settings::default()),
            ends: Ends {
                journal: JOURNAL_HEADER.to_vec(),
                ..Ends::default()
            },
            now: Instant::now(),
            unique: 0,
            asked: BTreeSet::new(),
            twice: BTreeSet::new(),
            nodes: vec![wire::ROOT],
            handles: Vec::new(),
        };
        let numbers = [7, 31, 128 * 1024, u32::MAX];
        let init: Vec<u8> = numbers.iter().flat_map(|n: &u32| n.to_ne_bytes()).collect();
        world.send(Opcode::Init as u32, 0, &init);
        world.relay.daemon_started(world.now, &mut world.ends);
        world.serve_honestly();
        world.look();
        assert!(world.asked.is_empty(), "INIT is answered");
        world
    }

    fn send(&mut self, number: u32, node: u64, body: &[u8]) {
        if !self.relay.wants_kernel() {
            return;
        }
        self.unique += 2;
        let mut message = wire::request(number, node, body);
        set_u64(&mut message, wire::request::UNIQUE, self.unique);
        set_u32(&mut message, wire::request::TID, 1000);
        let silent = [
            opcode::FORGET,
            opcode::BATCH_FORGET,
            opcode::INTERRUPT,
            opcode::NOTIFY_REPLY,
        ];
        if !silent.contains(&number) {
            self.asked.insert(self.unique);
        }
        self.relay
            .from_kernel(&mut message, self.now, &mut self.ends);
    }

    /// A request of the kernel's, of which the first number is a handle that it has, half of the time.
    fn request(&mut self, bytes: &mut Bytes<'_>) {
        let number = u32::from(bytes.byte() % 52);
        let pick = usize::from(bytes.byte());
        let node = self.nodes[pick % self.nodes.len()];
        let mut body = bytes.take().to_vec();
        if pick % 2 == 0 && !self.handles.is_empty() {
            set_u64(&mut body, 0, self.handles[pick % self.handles.len()]);
        }
        if number != Opcode::Init as u32 {
            self.send(number, node, &body);
        }
    }

    fn interrupt(&mut self, pick: u8) {
        let unique = self.asked.iter().nth(usize::from(pick)).copied();
        self.send(opcode::INTERRUPT, 0, &unique.unwrap_or(1).to_ne_bytes());
    }

    /// The daemon answers a request that it has, with any error or any body.
    fn answer(&mut self, bytes: &mut Bytes<'_>) {
        let pick = usize::from(bytes.byte());
        if self.ends.to_daemon.is_empty() {
            return;
        }
        let request = self.ends.to_daemon.remove(pick % self.ends.to_daemon.len());
        let unique = u64_at(&request.unwrap_or_default(), wire::request::UNIQUE);
        let mut body = bytes.take().to_vec();
        // Numbers that are likely to mean something, and the sizes that answers have.
        let sizes = [0, 8, 16, 64, 80, 104, 128, 144];
        let size = usize::from(bytes.byte());
        if let Some(size) = sizes.get(size) {
            body.resize(*size, 0);
        }
        let mut message = wire::answer_with(unique, &body);
        if let error @ 1..=40 = bytes.byte() {
            message = wire::answer(unique, i32::from(error)).to_vec();
        }
        self.give(&mut message);
    }

    /// Whatever the daemon sends: after a fault it is killed, as the process of a volume does it.
    fn give(&mut self, message: &mut [u8]) {
        let before = self.ends.to_kernel.len();
        let given = self.relay.from_daemon(message, self.now, &mut self.ends);
        if given.is_err() {
            assert!(
                self.ends.to_kernel.len() <= before + 1,
                "a fault answers one caller at most"
            );
            self.die();
        }
    }

    fn die(&mut self) {
        self.ends.to_daemon.clear();
        self.ends.full = false;
        self.relay.daemon_ended(self.now, &mut self.ends);
        self.relay.daemon_started(self.now, &mut self.ends);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.relay.tick(self.now, &mut self.ends);
    }

    fn make_room(&mut self) {
        self.ends.full = false;
        self.relay.daemon_writable(self.now, &mut self.ends);
    }

    /// The process of the volume is killed, and the next one reads what it left.
    fn restart(&mut self) {
        self.look();
        let in_flight: Vec<u64> = self.ends.in_flight.values().copied().collect();
        self.twice.extend(&in_flight);
        let settings = Settings::default();
        self.relay = Relay::restore(settings, &self.ends.journal, &in_flight)
            .expect("what the relay has written can be read");
        self.ends.in_flight.clear();
        self.ends.full = false;
        self.ends.to_daemon.clear();
        self.relay.daemon_ended(self.now, &mut self.ends);
        self.relay.daemon_started(self.now, &mut self.ends);
    }

    /// Looks at the answers, and at what the relay holds.
    fn look(&mut self) {
        for message in std::mem::take(&mut self.ends.to_kernel) {
            assert_eq!(u32_at(&message, 0) as usize, message.len());
            let error = u32_at(&message, 4).cast_signed();
            assert!((-4095..=0).contains(&error), "the error {error}");
            let unique = u64_at(&message, 8);
            let known = self.asked.remove(&unique) || self.twice.contains(&unique);
            assert!(known, "an answer to {unique}, which nobody asked");
            // An entry or a handle: the kernel may use both from now on.
            if error == 0 && message.len() >= OUT_HEADER + 8 && self.nodes.len() < 500 {
                let number = u64_at(&message, OUT_HEADER);
                match message.len() - OUT_HEADER {
                    wire::ENTRY_OUT => self.nodes.push(number),
                    wire::OPEN_OUT => self.handles.push(number),
                    _ => {}
                }
            }
        }
        let status = self.relay.status();
        let requests = usize::try_from(self.unique).unwrap_or(usize::MAX);
        assert!(status.nodes <= 1 + requests && status.handles <= requests);
        assert!(
            status.requests <= 129 && status.in_daemon <= 129,
            "{status:?}"
        );
        assert_eq!(status.requests, self.asked.len(), "{:?}", self.asked);
    }

    /// The last daemon is honest: everybody gets an answer.
    fn end(&mut self) {
        self.ends.killed = false;
        self.die();
        self.serve_honestly();
        self.look();
        assert!(self.asked.is_empty(), "never answered: {:?}", self.asked);
    }

    /// A daemon that has nothing but its root, and answers EIO to all else.
    fn serve_honestly(&mut self) {
        for _ in 0..MOST_ANSWERS {
            let Some(request) = self.ends.to_daemon.pop_front() else {
                return;
            };
            let unique = u64_at(&request, wire::request::UNIQUE);
            let number = u32_at(&request, wire::request::OPCODE);
            let silent = [opcode::FORGET, opcode::BATCH_FORGET].contains(&number);
            let mut answer = match Opcode::of(number) {
                Some(Opcode::Init) => {
                    let mut body = [0; wire::INIT_OUT];
                    for (at, value) in [(0, 7), (4, 19), (8, 1 << 20), (12, 0), (20, 128 * 1024)] {
                        set_u32(&mut body, at, value);
                    }
                    wire::answer_with(unique, &body)
                }
                Some(Opcode::Statfs) => wire::answer_with(unique, &[0; wire::STATFS_OUT]),
                _ if silent => continue,
                _ => wire::answer(unique, 5).to_vec(),
            };
            let given = self
                .relay
                .from_daemon(&mut answer, self.now, &mut self.ends);
            given.expect("an honest answer is no fault");
        }
        panic!("the daemon is asked for ever");
    }
}

#[cfg(test)]
mod tests {
    use super::check_traffic;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_traffic_is_borne(data in prop::collection::vec(any::<u8>(), 0..4000)) {
            check_traffic(&data);
        }
    }
}
