//! A kernel, the relay and a daemon, each step when a test says so.

use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::tests::process::{Bucket, Process};
use crate::serve::relay::wire::{self, OUT_HEADER, ROOT, set_u32, set_u64, u32_at, u64_at};
use crate::serve::relay::{DaemonFault, JOURNAL_HEADER, Link, Record, Relay, Settings};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// What the relay did.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) to_daemon: VecDeque<Vec<u8>>,
    to_kernel: Vec<Vec<u8>>,
    pub(super) notes: Vec<Vec<u8>>,
    pub(super) killed: HashSet<u32>,
    pub(super) journal: Vec<u8>,
    pub(super) in_flight: BTreeMap<u16, u64>,
    pub(super) blocked: bool,
}

impl Link for Ends {
    fn to_daemon(&mut self, message: &[u8]) -> bool {
        if !self.blocked {
            self.to_daemon.push_back(message.to_vec());
        }
        !self.blocked
    }
    fn to_kernel(&mut self, message: &[u8]) {
        self.to_kernel.push(message.to_vec());
    }
    fn notify(&mut self, message: Vec<u8>) {
        self.notes.push(message);
    }
    fn is_killed(&mut self, tid: u32) -> bool {
        self.killed.contains(&tid)
    }
    fn record(&mut self, record: &Record<'_>) {
        record.encode(&mut self.journal);
    }
    fn taken(&mut self, slot: u16, unique: u64) {
        self.in_flight.insert(slot, unique);
    }
}

/// An answer: the errno, and what follows the header.
pub(super) type Answer = Result<Vec<u8>, i32>;

pub(super) struct World {
    pub(super) relay: Relay,
    pub(super) ends: Ends,
    pub(super) bucket: Bucket,
    pub(super) daemon: Option<Process>,
    pub(super) outbox: VecDeque<Vec<u8>>,
    pub(super) now: Instant,
    pub(super) settings: Settings,
    generation: u64,
    unique: u64,
    /// Requests that have no answer yet.
    pub(super) asked: HashSet<u64>,
    pub(super) answers: HashMap<u64, Answer>,
    /// Who was asked for again after a restart: answered twice is harmless.
    twice: HashSet<u64>,
}

impl World {
    /// A mounted volume with a daemon that serves.
    pub(super) fn new(files: &[(&str, &[u8])]) -> Self {
        Self::with(files, Settings::default())
    }

    pub(super) fn with(files: &[(&str, &[u8])], settings: Settings) -> Self {
        let mut world = Self {
            relay: Relay::new(settings),
            ends: Ends {
                journal: JOURNAL_HEADER.to_vec(),
                ..Ends::default()
            },
            bucket: Bucket::with(files),
            daemon: None,
            outbox: VecDeque::new(),
            now: Instant::now(),
            settings,
            generation: 0,
            unique: 0,
            asked: HashSet::new(),
            answers: HashMap::new(),
            twice: HashSet::new(),
        };
        let flags = u32::MAX.to_ne_bytes();
        let init = [
            &7u32.to_ne_bytes()[..],
            &41u32.to_ne_bytes(),
            &[0, 0, 2, 0],
            &flags,
        ]
        .concat();
        let unique = world.send(Opcode::Init as u32, 0, &init);
        world.start();
        world.run();
        assert_eq!(
            world.answer(unique).expect("INIT succeeds").len(),
            wire::INIT_OUT
        );
        world
    }

    pub(super) fn later(&mut self, by: Duration) {
        self.now += by;
        self.relay.tick(self.now, &mut self.ends);
        self.collect();
    }

    /// The kernel sends a request from the thread 1000.
    pub(super) fn send(&mut self, number: u32, node: u64, body: &[u8]) -> u64 {
        self.send_from(1000, number, node, body)
    }

    pub(super) fn send_from(&mut self, tid: u32, number: u32, node: u64, body: &[u8]) -> u64 {
        self.unique += 2;
        self.send_as(self.unique, tid, number, node, body)
    }

    /// The kernel sends a request that an earlier process of the volume had read and not answered.
    pub(super) fn send_again(&mut self, number: u32, node: u64, body: &[u8]) -> u64 {
        self.unique += 2;
        let unique = self.unique | wire::UNIQUE_RESEND;
        self.send_as(unique, 1000, number, node, body)
    }

    fn send_as(&mut self, unique: u64, tid: u32, number: u32, node: u64, body: &[u8]) -> u64 {
        let mut message = wire::request(number, node, body);
        set_u64(&mut message, wire::request::UNIQUE, unique);
        set_u32(&mut message, wire::request::TID, tid);
        if !matches!(
            number,
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT
        ) {
            self.asked.insert(unique);
        }
        self.relay
            .from_kernel(&mut message, self.now, &mut self.ends);
        self.collect();
        unique
    }

    pub(super) fn interrupt(&mut self, unique: u64) {
        self.send(opcode::INTERRUPT, 0, &unique.to_ne_bytes());
    }

    /// Takes what the relay gave the kernel: one answer for each request, and no others.
    pub(super) fn collect(&mut self) {
        for message in self.ends.to_kernel.drain(..) {
            assert_eq!(u32_at(&message, 0) as usize, message.len(), "length");
            let unique = u64_at(&message, 8);
            let error = -u32_at(&message, 4).cast_signed();
            if self.twice.remove(&unique) {
                continue;
            }
            assert!(
                self.asked.remove(&unique),
                "an answer that nobody waits for"
            );
            assert!((0..512).contains(&error), "{error}");
            let body = message[OUT_HEADER..].to_vec();
            assert!(error == 0 || body.is_empty());
            let answer = if error == 0 { Ok(body) } else { Err(error) };
            self.answers.insert(unique, answer);
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.inbox.append(&mut self.ends.to_daemon);
        }
    }

    pub(super) fn start(&mut self) {
        self.generation += 1;
        self.start_with(Process::new(self.generation));
    }

    pub(super) fn start_with(&mut self, daemon: Process) {
        assert!(self.daemon.is_none());
        self.daemon = Some(daemon);
        self.relay.daemon_started(self.now, &mut self.ends);
        self.collect();
    }

    /// The daemon dies; what it had answered and nobody took is lost.
    pub(super) fn kill(&mut self) {
        self.daemon = None;
        self.outbox.clear();
        self.relay.daemon_ended(self.now, &mut self.ends);
        self.ends.to_daemon.clear();
        self.ends.blocked = false;
        self.collect();
    }

    /// The process that keeps the relay is killed, and the daemon ends with it.
    pub(super) fn kill_relay(&mut self) {
        let uniques: Vec<u64> = self.ends.in_flight.values().copied().collect();
        self.relay =
            Relay::restore(self.settings, &self.ends.journal, &uniques).expect("a journal");
        self.twice = uniques
            .into_iter()
            .filter(|unique| !self.asked.contains(unique))
            .collect();
        self.ends.in_flight.clear();
        self.kill();
        let mut journal = JOURNAL_HEADER.to_vec();
        self.relay
            .snapshot(&mut |record| record.encode(&mut journal));
        self.ends.journal = journal;
    }

    /// The daemon serves the `n`th of its requests.
    pub(super) fn work(&mut self, n: usize) {
        let daemon = self.daemon.as_mut().expect("a daemon");
        if let Some(answer) = daemon.serve(n, &mut self.bucket) {
            self.outbox.push_back(answer);
        }
    }

    /// The relay takes the `n`th of the daemon's answers.
    pub(super) fn deliver(&mut self, n: usize) {
        let mut answer = self.outbox.remove(n).expect("an answer");
        self.give(&mut answer).expect("no fault");
    }

    pub(super) fn give(&mut self, answer: &mut [u8]) -> Result<(), DaemonFault> {
        let result = self.relay.from_daemon(answer, self.now, &mut self.ends);
        self.collect();
        result
    }

    pub(super) fn unblock(&mut self) {
        self.ends.blocked = false;
        self.relay.daemon_writable(self.now, &mut self.ends);
        self.collect();
    }

    /// The daemon serves all it has, until nothing moves.
    pub(super) fn run(&mut self) {
        loop {
            if !self.outbox.is_empty() {
                self.deliver(0);
            } else if self
                .daemon
                .as_ref()
                .is_some_and(|daemon| !daemon.inbox.is_empty())
            {
                self.work(0);
            } else {
                return;
            }
        }
    }

    /// The answer to a request that has been answered.
    pub(super) fn answer(&mut self, unique: u64) -> Answer {
        self.answers.remove(&unique).expect("an answer")
    }

    /// Asks, lets the daemon serve, and gives the answer.
    pub(super) fn ask(&mut self, opcode: Opcode, node: u64, body: &[u8]) -> Answer {
        let unique = self.send(opcode as u32, node, body);
        self.run();
        self.answer(unique)
    }

    pub(super) fn lookup(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        let entry = self.ask(Opcode::Lookup, parent, &zero_ended(&[name]))?;
        Ok(u64_at(&entry, 0))
    }

    /// Looks up one name after the other.
    pub(super) fn walk(&mut self, path: &str) -> u64 {
        path.split('/').fold(ROOT, |node, name| {
            self.lookup(node, name).expect("it is there")
        })
    }

    pub(super) fn open(&mut self, node: u64, flags: u32) -> Result<u64, i32> {
        let open = self.ask(Opcode::Open, node, &open_in(flags))?;
        Ok(u64_at(&open, 0))
    }

    pub(super) fn opendir(&mut self, node: u64) -> Result<u64, i32> {
        let open = self.ask(Opcode::Opendir, node, &open_in(0o200_000))?;
        Ok(u64_at(&open, 0))
    }

    /// The node and the handle of a new file.
    pub(super) fn create(&mut self, parent: u64, name: &str) -> Result<(u64, u64), i32> {
        let body = [&[0; 16][..], &zero_ended(&[name])].concat();
        let created = self.ask(Opcode::Create, parent, &body)?;
        Ok((u64_at(&created, 0), u64_at(&created, wire::ENTRY_OUT)))
    }

    pub(super) fn read(&mut self, node: u64, handle: u64) -> Answer {
        self.ask(Opcode::Read, node, &read_in(handle, 0, 4096))
    }

    pub(super) fn write(&mut self, node: u64, handle: u64, data: &[u8]) -> Result<(), i32> {
        self.ask(Opcode::Write, node, &write_in(handle, data))
            .map(|_| ())
    }

    /// FLUSH, FSYNC, RELEASE and RELEASEDIR.
    pub(super) fn on_handle(&mut self, opcode: Opcode, node: u64, handle: u64) -> Result<(), i32> {
        self.ask(opcode, node, &handle_in(handle)).map(|_| ())
    }

    /// One page of a listing: the names, and the position after the last.
    pub(super) fn list(
        &mut self,
        node: u64,
        handle: u64,
        position: u64,
    ) -> Result<(Vec<String>, u64), i32> {
        let body = self.ask(Opcode::Readdir, node, &read_in(handle, position, 4096))?;
        let entries = entries(&body);
        let last = entries.last().map_or(position, |(_, position)| *position);
        Ok((entries.into_iter().map(|(name, _)| name).collect(), last))
    }

    pub(super) fn forget(&mut self, node: u64, lookups: u64) {
        self.send(opcode::FORGET, node, &lookups.to_ne_bytes());
        self.run();
    }
}

/// The names of a listing's page with the positions after them.
pub(super) fn entries(body: &[u8]) -> Vec<(String, u64)> {
    let mut entries = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let length = u32_at(body, at + 16) as usize;
        let name = &body[at + 24..at + 24 + length];
        entries.push((
            String::from_utf8_lossy(name).into_owned(),
            u64_at(body, at + 8),
        ));
        at += (24 + length).next_multiple_of(8);
    }
    entries
}

pub(super) fn zero_ended(names: &[&str]) -> Vec<u8> {
    names
        .iter()
        .flat_map(|name| name.bytes().chain([0]))
        .collect()
}

pub(super) fn open_in(flags: u32) -> [u8; 8] {
    let mut body = [0; 8];
    set_u32(&mut body, 0, flags);
    body
}

pub(super) fn handle_in(handle: u64) -> [u8; 24] {
    let mut body = [0; 24];
    set_u64(&mut body, 0, handle);
    body
}

pub(super) fn read_in(handle: u64, offset: u64, size: u32) -> [u8; 40] {
    let mut body = [0; 40];
    set_u64(&mut body, 0, handle);
    set_u64(&mut body, 8, offset);
    set_u32(&mut body, 16, size);
    body
}

/// A WRITE of `data` at the start of the file.
pub(super) fn write_in(handle: u64, data: &[u8]) -> Vec<u8> {
    let mut body = read_in(handle, 0, data.len() as u32).to_vec();
    body.extend_from_slice(data);
    body
}

pub(super) fn rename_in(to: u64, old: &str, new: &str) -> Vec<u8> {
    [&to.to_ne_bytes()[..], &zero_ended(&[old, new])].concat()
}
