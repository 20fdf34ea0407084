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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

/// A process in a container that opens and reads a file again and again, until it is told to stop or fails.
pub(crate) struct Reader {
    process: Child,
    stop: PathBuf,
}

impl Reader {
    /// Starts it; `content` is what the file has, one line.
    pub(crate) fn start(container: &Container<'_>, file: &str, content: &str) -> Result<Self> {
        let line = format!(
            "n=0; rm -f /tmp/stop; while [ ! -e /tmp/stop ]; do \
             read=$(cat {file} 2>&1) || {{ echo \"after $n reads: $read\"; exit 1; }}; \
             [ \"$read\" = '{content}' ] || {{ echo \"after $n reads: $read\"; exit 1; }}; \
             n=$((n + 1)); done; echo $n"
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

    /// Stops it and returns how often it has read.
    ///
    /// # Errors
    /// If a read failed or gave something else.
    pub(crate) fn finish(mut self) -> Result<u64> {
        File::create(&self.stop).context("tell the reader to stop")?;
        let mut said = String::new();
        let mut output = self.process.stdout.take().context("the reader's output")?;
        output.read_to_string(&mut said)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "a reader failed: {}", said.trim());
        said.trim()
            .parse()
            .with_context(|| format!("a reader said {said:?}"))
    }
}

/// A thread that holds a file of a container open and reads all of it from the daemon again and again.
pub(crate) struct Holder {
    thread: JoinHandle<Result<()>>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
}

impl Holder {
    pub(crate) fn start(container: &Container<'_>, inside: &str, content: Vec<u8>) -> Result<Self> {
        let file = File::open(container.path(inside)?).with_context(|| format!("open {inside}"))?;
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // What the kernel has cached says nothing about the daemon.
                posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
                let mut read = vec![0; content.len()];
                let round = counted.load(Ordering::Relaxed);
                file.read_exact_at(&mut read, 0)
                    .with_context(|| format!("read an open file, after {round} reads"))?;
                if read != content {
                    bail!("an open file read wrong, after {round} reads");
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self {
            thread,
            stop,
            count,
        })
    }

    pub(crate) fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        Ok(self.count.load(Ordering::Relaxed))
    }
}
