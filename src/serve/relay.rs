//! The relay between the kernel's FUSE connection and whichever daemon serves it now.
//!
//! A state machine without input or output of its own: the process of the volume gives it what it
//! has read, and does through [`Link`] what it is told. One thread, no clock: each call is told
//! what time it is.
//!
//! The rule that it keeps: when the daemon dies, paths and readers go on; whoever had a file open
//! for writing gets EIO until he closes it; nothing is lost in silence.

mod agreement;
#[cfg(any(test, feature = "invariants"))]
pub mod any_traffic;
mod daemon;
mod death;
mod handles;
mod journal;
mod kernel;
mod listing;
mod nodes;
mod opcode;
mod replies;
mod requests;
mod send;
mod steps;
#[cfg(test)]
mod tests;
mod watch;
mod wire;

pub use journal::{JOURNAL_HEADER, JournalError, Record};
pub use wire::{BUFFER, resend};

use agreement::{Agreed, Offer};
use handles::Handles;
use nodes::{Nodes, Settled};
use requests::Requests;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

/// Requests that a daemon is given at a time: libfuse has a thread with a stack for each. One more
/// is let in for the question whether it still answers.
const MOST_IN_DAEMON: usize = 96;
/// Requests of the kernel that are held before no more are read.
const MOST_HELD: usize = 128;

/// What the relay does to the world.
pub trait Link {
    /// Sends one message to the daemon as one packet. False when it cannot be sent now; the relay
    /// keeps it for [`Relay::daemon_writable`] or, when the daemon is gone, for nobody.
    fn to_daemon(&mut self, message: &[u8]) -> bool;
    /// Gives the kernel an answer: one write(2) to /dev/fuse. That nobody waits for it any more
    /// (ENOENT) is no error.
    fn to_kernel(&mut self, message: &[u8]);
    /// Has a notification written to /dev/fuse by a thread that serves nothing else: the kernel
    /// may have to wait for answers of this relay before it takes it.
    fn notify(&mut self, message: Vec<u8>);
    /// Whether the thread has SIGKILL pending or is gone.
    fn is_killed(&mut self, tid: u32) -> bool;
    /// Adds to the journal, before the next message of the same call is sent.
    fn record(&mut self, record: &Record<'_>);
    /// The kernel's request `unique` is held in `slot` from now on, instead of what was. A slot
    /// keeps it when it is answered: answering a second time is harmless.
    fn taken(&mut self, slot: u16, unique: u64);
}

/// What a volume's relay is told once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// The daemon's uid and gid, where no user namespace makes it look like root: shown as 0.
    pub own_uid: Option<u32>,
    /// How long a request may wait while no daemon answers; then it gets EIO.
    pub request_timeout: Option<Duration>,
}

/// How the relay is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// There is a daemon.
    pub daemon: bool,
    /// It has answered INIT.
    pub initialised: bool,
    /// It has answered a STATFS since its start.
    pub answered: bool,
    /// Since when a STATFS of the relay's own has not been answered.
    pub unanswered_since: Option<Instant>,
    /// Requests of the kernel that have not been answered, and the oldest of them.
    pub requests: usize,
    pub oldest: Option<Instant>,
    /// Requests that the daemon has not answered, abandoned ones and the relay's own included.
    pub in_daemon: usize,
    pub nodes: usize,
    pub handles: usize,
    /// Handles that are open for writing and work.
    pub writers: usize,
    /// Handles that give EIO until they are closed.
    pub failed: usize,
    pub deaths: u64,
    /// Answers of daemons that the kernel was given.
    pub served: u64,
    /// Requests that a second daemon was asked.
    pub repeated: u64,
    /// Requests that the relay answered with EIO.
    pub errors: u64,
    /// Requests that were answered before the daemon had.
    pub abandoned: u64,
}

/// A message of the daemon's that cannot be: it is to be killed. Nothing of the message has
/// reached the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonFault {
    /// The header's length is not the packet's, or no answer to that request is so long.
    Length,
    /// No request of that unique is with it.
    UnknownRequest,
    /// The error is none.
    Error(i32),
    /// INIT was refused, or answered with another protocol.
    Init,
    /// INIT was answered otherwise than by the daemon before.
    LimitsDiffer,
    /// A node that cannot be there: the root, none, or one above itself.
    Node,
    /// A listing that is not one.
    Listing,
}

impl fmt::Display for DaemonFault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Length => "a message of the wrong length",
            Self::UnknownRequest => "an answer to a request that it was not sent",
            Self::Error(error) => {
                return write!(to, "ossfs sent an answer with the error \"{error}\"");
            }
            Self::Init => {
                "an answer to INIT that is an error or not of the FUSE protocol 7.12 or later"
            }
            Self::LimitsDiffer => "other limits in its answer to INIT than the previous ossfs",
            Self::Node => "a node that is not possible at its path",
            Self::Listing => "a malformed directory listing",
        };
        write!(to, "ossfs sent {what}")
    }
}

impl std::error::Error for DaemonFault {}

/// How far the daemon of now is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Gone,
    /// It has not answered INIT, or not the STATFS after it: one that cannot reach its store gives
    /// up between the two.
    Starting,
    Serving,
}

/// The relay of one volume.
#[derive(Debug)]
pub struct Relay {
    settings: Settings,
    now: Instant,
    daemon: Daemon,
    offer: Option<Offer>,
    agreed: Option<Agreed>,
    /// What the daemon of now has answered to INIT, until it has answered a STATFS as well.
    proposed: Option<Agreed>,
    /// The kernel's INIT, until it is answered.
    init: Option<u64>,
    nodes: Nodes,
    handles: Handles,
    requests: Requests,
    /// Messages that the daemon's socket had no room for.
    outgoing: VecDeque<Vec<u8>>,
    /// Slots of requests that wait for room in the daemon.
    room: VecDeque<(usize, u64)>,
    /// Nodes with abandoned changes of their file that the daemon has not ended, and how many.
    unsettled: HashMap<u64, usize>,
    settled: Settled,
    scratch: Vec<u8>,
    /// Since when a STATFS of our own is out.
    ping: Option<Instant>,
    /// When the last one was answered.
    answered: Option<Instant>,
    /// When `tick` has something to do.
    soonest: Option<Instant>,
    /// Requests that were in flight when the process ended: uniques of the kernel's.
    orphans: Vec<u64>,
    root: Root,
    counts: Counts,
}

/// The last answers about the root, for who asks while no daemon serves: kubelet looks at the mount
/// before it has it unmounted.
#[derive(Debug, Clone, Copy, Default)]
struct Root {
    attr: Option<[u8; wire::ATTR_OUT]>,
    statfs: Option<[u8; wire::STATFS_OUT]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    deaths: u64,
    served: u64,
    repeated: u64,
    errors: u64,
    abandoned: u64,
}

impl Relay {
    /// The relay of a volume that has just been mounted.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: Instant::now(),
            daemon: Daemon::Gone,
            offer: None,
            agreed: None,
            proposed: None,
            root: Root::default(),
            init: None,
            nodes: Nodes::new(),
            handles: Handles::default(),
            requests: Requests::default(),
            outgoing: VecDeque::new(),
            room: VecDeque::new(),
            unsettled: HashMap::new(),
            settled: Settled::default(),
            scratch: Vec::new(),
            ping: None,
            answered: None,
            soonest: None,
            orphans: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Changes how long a request may wait while no daemon answers.
    pub fn set_request_timeout(&mut self, time: Option<Duration>) {
        self.settings.request_timeout = time;
    }

    /// Whether another message may be read from /dev/fuse.
    pub fn wants_kernel(&self) -> bool {
        self.outgoing.is_empty()
            && self.requests.sent() < MOST_IN_DAEMON
            && self.requests.held() < MOST_HELD
    }

    /// Whether to wait until the daemon's socket has room, and to call
    /// [`Relay::daemon_writable`] then.
    pub fn wants_writable(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// When [`Relay::tick`] has something to do, none while nothing waits.
    pub fn next_tick(&self) -> Option<Instant> {
        self.soonest
    }

    /// How the relay is. It looks at each request, and at nothing that can be many.
    pub fn status(&self) -> Status {
        Status {
            daemon: self.daemon != Daemon::Gone,
            initialised: self.daemon == Daemon::Serving || self.proposed.is_some(),
            answered: self.answered.is_some(),
            unanswered_since: self.ping,
            requests: self.requests.held(),
            oldest: self
                .requests
                .slots()
                .filter(|(_, request)| request.is_kernels())
                .map(|(_, request)| request.since)
                .min(),
            in_daemon: self.requests.sent(),
            nodes: self.nodes.len(),
            handles: self.handles.len(),
            writers: self.handles.writers(),
            failed: self.handles.failed(),
            deaths: self.counts.deaths,
            served: self.counts.served,
            repeated: self.counts.repeated,
            errors: self.counts.errors,
            abandoned: self.counts.abandoned,
        }
    }

    /// Every record that a new journal needs to say what the tables hold now.
    pub fn snapshot(&self, each: &mut dyn FnMut(&Record<'_>)) {
        if let (Some(offer), Some(agreed)) = (self.offer, self.agreed) {
            each(&Record::Agreed {
                offer: offer.to_bytes(),
                answer: agreed.to_bytes(),
            });
        }
        if let Some(attr) = self.root.attr {
            each(&Record::Root { attr });
        }
        for node in self.nodes.iter().filter(|node| node.id != wire::ROOT) {
            each(&node.to_record());
        }
        for (_, request) in self.requests.slots().filter(|(_, it)| it.is_sent()) {
            if let Some(node) = self.replaces(request) {
                each(&node.to_record_gone());
            }
        }
        let open = self.handles.iter();
        for (id, handle) in open.filter(|(_, handle)| handle.closing.is_none()) {
            each(&handle.to_record(id));
        }
    }
}
