//! What the run says: a line a round, and when something is wrong all that is needed to see why and
//! to have it again.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is what people read"
)]

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many of the last actions are shown.
const SHOWN: usize = 150;
/// How many of the last lines of the driver's log are shown.
const LOG_LINES: usize = 100;

/// What has happened, for the case that it has to be shown.
#[derive(Clone)]
pub(crate) struct History(Arc<Mutex<Kept>>);

struct Kept {
    since: Instant,
    round: u64,
    lines: VecDeque<String>,
    file: Option<File>,
}

impl History {
    /// An empty history; with a `file`, all of it is written there, too.
    pub(crate) fn new(file: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            file,
            since: Instant::now(),
            round: 0,
            lines: VecDeque::new(),
        })))
    }

    pub(crate) fn note(&self, text: impl fmt::Display) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.lines.len() == SHOWN {
            kept.lines.pop_front();
        }
        let line = format!("{:9.3} s  {text}", kept.since.elapsed().as_secs_f64());
        if let Some(file) = &mut kept.file {
            writeln!(file, "{line}").expect("write the history");
        }
        kept.lines.push_back(line);
    }

    pub(crate) fn begin_round(&self, round: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).round = round;
        self.note(format_args!("round {round} begins"));
    }

    fn show(&self) -> (u64, String) {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<String> = kept.lines.iter().cloned().collect();
        (kept.round, lines.join("\n"))
    }
}

/// Has the run end at the first panic in any thread, which is how everything here says that
/// something is wrong, with status 1. `again` is the command that repeats the run.
pub(crate) fn end_at_a_panic(history: History, log: PathBuf, again: String) {
    std::panic::set_hook(Box::new(move |panic| {
        static FIRST: Mutex<()> = Mutex::new(());
        // Never given back: the second panic waits for the end.
        let _first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
        let (round, lines) = history.show();
        eprintln!("the last lines of the driver's log:\n{}\n", tail(&log));
        eprintln!("the last actions and their outcomes:\n{lines}\n");
        eprintln!("FAILED in round {round}: {panic}\n\nto repeat it: {again}");
        end(1);
    }));
}

/// Ends the run at once: a thread may be waiting for what never comes.
#[expect(
    clippy::exit,
    reason = "the namespaces end with the run, whatever is left in them"
)]
fn end(status: i32) -> ! {
    exit(status)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Prints the first line of a run.
pub(crate) fn announce(seed: u64, again: &str) {
    println!("seed {seed}; to repeat the run: {again}");
}

/// What a round counts.
macro_rules! counts {
    ($($name:ident $text:literal),* $(,)?) => {
        #[derive(Default)]
        pub(crate) struct Counts { $(pub(crate) $name: Count,)* }

        impl Counts {
            /// All counts as words, beginning again at 0.
            pub(crate) fn take(&self) -> String {
                let mut words = Vec::new();
                $(match self.$name.0.swap(0, Ordering::Relaxed) {
                    0 => {}
                    n => words.push(format!("{n} {}", $text)),
                })*
                words.join(", ")
            }
        }
    };
}

counts! {
    mounts "mounts",
    refused "refused",
    kept "found mounted",
    unmounts "unmounts",
    calls_killed "calls killed",
    ossfs_killed "ossfs killed",
    children_killed "serve killed",
    parents_killed "all of a volume killed",
    stopped "stopped",
    containers_restarted "containers restarted",
    heals "heals",
    heals_failed "heals failed",
    restarts "kubelet restarts",
    upgrades "upgrades",
    faults "store faults",
    rotations "Secrets rotated",
    written "files written",
    not_written "not written",
    removed "removed",
}

#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Prints the line of a round: how long it acted, and how long it took to settle and be checked.
pub(crate) fn round(number: u64, [acted, settled]: [Duration; 2], counts: &str, checked: &str) {
    println!(
        "round {number} ({:.0} s + {:.0} s): {counts}; checked {checked}",
        acted.as_secs_f64(),
        settled.as_secs_f64()
    );
}

/// Prints how many cases of `deaths` there were, of how many.
pub(crate) fn deaths(died: usize, all: usize) {
    println!("{} of {all} deaths by use and place", died.min(all));
}

/// Prints the last line of a run in which everything was right.
pub(crate) fn done(rounds: u64, seed: u64) {
    println!("{rounds} rounds from seed {seed}: nothing lost, nothing left");
}

/// Ends the run unless it is dropped within `limit`.
pub(crate) struct Watchdog(Option<std::sync::mpsc::Sender<()>>);

impl Watchdog {
    pub(crate) fn start(what: &'static str, limit: Duration) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                panic!("{what} has not ended within {limit:?}");
            }
        });
        Self(Some(sender))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}
