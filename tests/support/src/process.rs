//! Processes: those that a test starts and reads, and any process held by a file descriptor.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process held by a file descriptor (pidfd_open(2)): it never means another process with the same id.
#[derive(Debug)]
pub struct Pidfd(OwnedFd);

impl Pidfd {
    /// Takes hold of a process; an error if there is none with this id.
    pub fn open(pid: u32) -> Result<Self> {
        let id = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{pid} is no process id"))?;
        let handle =
            pidfd_open(id, PidfdFlags::empty()).with_context(|| format!("open process {pid}"))?;
        Ok(Self(handle))
    }

    /// Waits for the end of the process `pid` and tells whether it came in time; one that is not
    /// there has ended.
    pub fn wait_for_end(pid: i32, timeout: Duration) -> bool {
        Self::open(pid.unsigned_abs()).map_or(true, |process| process.wait(timeout))
    }

    /// Kills the process; nothing happens if it has ended.
    pub fn kill(&self) {
        pidfd_send_signal(&self.0, Signal::KILL).ok();
    }

    /// Waits for the end of the process and tells whether it came in time.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], left.as_ref()) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|count| count > 0),
            }
        }
    }
}

/// Longer than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns once `is_so` holds, of which no event tells.
///
/// # Panics
/// With `what`, if it does not for long.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < PATIENCE, "not seen: {what}");
        std::thread::yield_now();
    }
}

/// Sets a flag when it is dropped, so that threads which look at it end when a test fails, too.
pub struct EndOnDrop<'a>(pub &'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Which output of a process is read.
pub enum Stream {
    Stdout,
    Stderr,
}

/// A process whose lines are read while it runs; it is killed when it is dropped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub fn start(command: &mut Command, stream: Stream) -> Self {
        match stream {
            Stream::Stdout => command.stdout(Stdio::piped()),
            Stream::Stderr => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().expect("start a process");
        let output: Box<dyn Read + Send> = match stream {
            Stream::Stdout => Box::new(child.stdout.take().unwrap()),
            Stream::Stderr => Box::new(child.stderr.take().unwrap()),
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines up to the first one with `text` in it.
    #[track_caller]
    pub fn read_until(&self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(e) => panic!("{e} while waiting for {text:?}, after {lines:#?}"),
            }
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.read_until(text).pop().unwrap()
    }

    /// Returns once the process waits for the lock of a file (proc_locks(5)).
    #[track_caller]
    pub fn await_lock(&self) {
        let pid = self.id().to_string();
        let waits =
            |line: &str| line.contains("->") && line.split_whitespace().any(|word| word == pid);
        wait_until("it waits for a lock", || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(waits)
        });
    }

    /// As [`wait_until`], for something that the process does.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        wait_until(what, is_so);
    }

    /// What the process, the stand-in for kubelet, did with the plugin directory `plugins` until
    /// now, once all that happened before this call has reached it.
    pub fn seen_in(&self, plugins: &Path) -> Vec<String> {
        static MARKERS: AtomicU32 = AtomicU32::new(0);
        let marker = format!("zz~marker{}", MARKERS.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir(plugins.join(&marker)).unwrap();
        let mut lines = self.read_until(&format!("init {marker} failed"));
        lines.pop();
        std::fs::remove_dir(plugins.join(&marker)).unwrap();
        lines.extend(self.read_until(&format!("removed {marker}")));
        lines.pop();
        lines
    }

    /// Reads up to the first line with `text` in it, has the process end, and returns all lines.
    ///
    /// # Panics
    /// If it does not end well.
    #[track_caller]
    pub fn end_at(mut self, text: &str) -> String {
        let mut lines = self.read_until(text);
        let (ended_well, rest) = self.terminate();
        assert!(ended_well);
        lines.extend(rest);
        lines.join("\n")
    }

    /// Asks the process to end, and returns whether it ended well, with the rest of its lines.
    pub fn terminate(&mut self) -> (bool, Vec<String>) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.finish()
    }

    /// Waits until it has ended, and returns whether it ended well, with the rest of its lines.
    pub fn finish(&mut self) -> (bool, Vec<String>) {
        let (status, lines) = self.end();
        (status.success(), lines)
    }

    /// Waits until it has ended, and returns how, with the rest of its lines.
    pub fn end(&mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().unwrap();
        (status, self.lines.iter().collect())
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the kernel hands over again what a process had not answered: Linux 6.9 and later.
#[must_use]
pub fn kernel_sends_again() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(9))
}
