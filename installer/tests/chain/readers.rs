//! Pods at work: each reads its volume without end, through paths and through a file that it has
//! opened before, and nothing may ever be wrong with what it reads.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use support::PATIENCE;

pub(crate) struct Readers {
    stop: Arc<AtomicBool>,
    round: Arc<AtomicU64>,
    done: Receiver<u64>,
    threads: Vec<JoinHandle<u64>>,
}

impl Readers {
    /// Starts one for each of `targets`, where the object `data` is as given.
    pub(crate) fn start(targets: &[PathBuf], data: &[u8]) -> Self {
        let (stop, round) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (sender, done) = channel();
        let data: Arc<[u8]> = data.into();
        let threads = targets
            .iter()
            .map(|target| {
                let path = target.join("data");
                let held = File::open(&path).unwrap();
                let (stop, round, data) = (stop.clone(), round.clone(), data.clone());
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let (mut reported, mut times) = (0, 0);
                    let mut buffer = vec![0; data.len()];
                    while !stop.load(Ordering::Relaxed) {
                        let now = round.load(Ordering::SeqCst);
                        assert!(*std::fs::read(&path).unwrap() == *data, "{path:?}");
                        held.read_exact_at(&mut buffer, 0).unwrap();
                        assert!(*buffer == *data, "{path:?}, which is open");
                        times += 1;
                        if now > reported {
                            reported = now;
                            // Nobody waits any more.
                            let _ = sender.send(now);
                        }
                    }
                    times
                })
            })
            .collect();
        Self {
            stop,
            round,
            done,
            threads,
        }
    }

    /// Waits until each has read everything once more, from here on.
    ///
    /// # Panics
    /// If one stalls or has read anything wrong.
    #[track_caller]
    pub(crate) fn each_once_more(&self) {
        let round = self.round.fetch_add(1, Ordering::SeqCst) + 1;
        let mut left = self.threads.len();
        while left > 0 {
            let reported = self.done.recv_timeout(PATIENCE).expect("a reader stalls");
            left -= usize::from(reported == round);
        }
    }

    /// Ends them, and returns how often they have read everything.
    #[track_caller]
    pub(crate) fn close(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
