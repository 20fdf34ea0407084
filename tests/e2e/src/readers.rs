//! Readers in containers: none of them may notice what happens around it.

use crate::container::Container;
use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A process in a container that opens and reads a file again and again until it is told to stop.
pub(crate) struct Reader {
    process: Child,
    stop: PathBuf,
}

/// What readers have done.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    succeeded: u64,
    /// What the others said, one line each.
    failed: Vec<String>,
}

impl Reads {
    /// Fails unless there were reads that succeeded, and at most `excused` that gave EIO.
    pub(crate) fn check(&self, excused: usize) -> Result<()> {
        ensure!(
            self.succeeded > 0,
            "a reader has read nothing: {:?}",
            self.failed
        );
        let others = self
            .failed
            .iter()
            .filter(|said| !said.contains("Input/output error"));
        ensure!(
            self.failed.len() <= excused && others.count() == 0,
            "{} of {} reads failed, where {excused} may give EIO: {}",
            self.failed.len(),
            self.succeeded,
            self.failed.join("; ")
        );
        Ok(())
    }
}

impl Reader {
    /// Starts it; `content` is what the file has, one line.
    pub(crate) fn start(container: &Container<'_>, file: &str, content: &str) -> Result<Self> {
        let line = format!(
            "n=0; rm -f /tmp/stop; while [ ! -e /tmp/stop ]; do \
             if read=$(cat {file} 2>&1) && [ \"$read\" = '{content}' ]; then n=$((n + 1)); \
             else echo \"after $n reads: $read\"; fi; done; echo $n"
        );
        let process = container
            .command(&["sh", "-c", &line])
            .stdout(Stdio::piped())
            .spawn()
            .context("start a reader")?;
        Ok(Self {
            process,
            stop: container.path("/tmp/stop")?,
        })
    }

    /// Stops it and returns what it has done.
    pub(crate) fn finish(mut self) -> Result<Reads> {
        File::create(&self.stop).context("tell the reader to stop")?;
        let mut said = String::new();
        let mut output = self.process.stdout.take().context("the reader's output")?;
        output.read_to_string(&mut said)?;
        let status = self.process.wait()?;
        ensure!(
            status.success(),
            "a reader ended with {status}: {}",
            said.trim()
        );
        let (failed, count) = said.trim().rsplit_once('\n').unwrap_or(("", said.trim()));
        let succeeded = count
            .parse()
            .with_context(|| format!("a reader said {said:?}"))?;
        let failed = failed.lines().map(str::to_owned).collect();
        Ok(Reads { succeeded, failed })
    }
}

/// A thread that holds a file of a container open and reads all of it from the daemon again and again.
pub(crate) struct Holder {
    thread: JoinHandle<Result<Reads>>,
    stop: Arc<AtomicBool>,
}

impl Holder {
    pub(crate) fn start(container: &Container<'_>, inside: &str, content: Vec<u8>) -> Result<Self> {
        let file = File::open(container.path(inside)?).with_context(|| format!("open {inside}"))?;
        let stop = Arc::<AtomicBool>::default();
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut reads = Reads::default();
            while !stopped.load(Ordering::Relaxed) {
                // What the kernel has cached says nothing about the daemon.
                posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
                let mut read = vec![0; content.len()];
                match file.read_exact_at(&mut read, 0) {
                    Ok(()) if read == content => reads.succeeded += 1,
                    Ok(()) => bail!("an open file read wrong, after {} reads", reads.succeeded),
                    Err(error) => reads.failed.push(error.to_string()),
                }
            }
            Ok(reads)
        });
        Ok(Self { thread, stop })
    }

    pub(crate) fn finish(self) -> Result<Reads> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))?
    }
}
