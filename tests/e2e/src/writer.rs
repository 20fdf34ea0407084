//! A writer whose successes are remembered and later held against the bucket.

use crate::cluster::BUCKET;
use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use support::Store;

/// What one file holds.
const SIZE: usize = 64 * 1024;

/// Writes one file after the other, each under a name of its own.
pub(crate) struct Writer {
    thread: JoinHandle<Written>,
    stop: Arc<AtomicBool>,
    acknowledged: Receiver<usize>,
}

/// How the writes ended.
pub(crate) struct Written {
    acknowledged: Vec<usize>,
    failed: Vec<(usize, io::Error)>,
}

impl Writer {
    pub(crate) fn start(directory: PathBuf) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let (send, acknowledged) = channel();
        let thread = thread::spawn(move || {
            let mut written = Written {
                acknowledged: Vec::new(),
                failed: Vec::new(),
            };
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                match write(&directory, number) {
                    Ok(()) => {
                        written.acknowledged.push(number);
                        // Nobody may be waiting.
                        send.send(number).ok();
                    }
                    Err(error) => written.failed.push((number, error)),
                }
                number += 1;
            }
            written
        });
        Self {
            thread,
            stop,
            acknowledged,
        }
    }

    /// Waits until two more files are written: the second was begun after this call.
    ///
    /// # Errors
    /// If that takes longer.
    pub(crate) fn progress(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.acknowledged.try_recv().is_ok() {}
        for _ in 0..2 {
            self.acknowledged
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .context("nothing could be written")?;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(Written {
            acknowledged: Vec::new(),
            failed: Vec::new(),
        })
    }
}

impl Written {
    /// Holds what was acknowledged against the bucket; a write that failed may have given EIO alone.
    pub(crate) fn check(&self, store: &Store) -> Result<()> {
        ensure!(!self.acknowledged.is_empty(), "no file was written");
        for number in &self.acknowledged {
            let object = store.object(BUCKET, &name(*number));
            ensure!(
                object.as_deref() == Some(content(*number).as_slice()),
                "{} was written and closed; the object has {:?} bytes",
                name(*number),
                object.map(|bytes| bytes.len())
            );
        }
        for (number, error) in &self.failed {
            ensure!(
                error.raw_os_error() == Some(Errno::EIO as i32),
                "{}: {error}, where EIO is expected",
                name(*number)
            );
        }
        Ok(())
    }
}

fn name(number: usize) -> String {
    format!("written-{number}")
}

fn content(number: usize) -> Vec<u8> {
    format!("{number:08}").into_bytes().repeat(SIZE / 8)
}

fn write(directory: &Path, number: usize) -> io::Result<()> {
    let mut file = File::create(directory.join(name(number)))?;
    file.write_all(&content(number))?;
    file.sync_all()?;
    nix::unistd::close(file).map_err(io::Error::from)
}
