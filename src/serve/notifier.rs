//! Writes notifications to the kernel from a thread that does nothing else: dropping the pages of a
//! file waits for reads of it that are under way, and those wait for the volume's process.

use crate::serve::connection;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many notifications may wait. One is due for each file that had a writer when its daemon
/// ended.
const MOST: usize = 1 << 20;
/// The thread's stack, in bytes.
const STACK: usize = 128 * 1024;

/// The thread's end that takes notifications.
pub(crate) struct Notifier {
    queue: Arc<Queue>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    messages: VecDeque<Vec<u8>>,
    ended: bool,
}

impl Notifier {
    /// Starts the thread, which writes to `fuse`.
    pub(crate) fn start(fuse: OwnedFd) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let own = Arc::clone(&queue);
        // It ends by itself once this is dropped, or with the process: it may be in a write that
        // waits, and is not joined.
        std::thread::Builder::new()
            .name("notify".to_owned())
            .stack_size(STACK)
            .spawn(move || own.write_to(&fuse))
            .context("start a thread")?;
        Ok(Self { queue })
    }

    /// Has `message` written soon. False if too many wait: then it is lost.
    #[must_use]
    pub(crate) fn send(&self, message: Vec<u8>) -> bool {
        let mut state = self.queue.lock();
        if state.messages.len() >= MOST {
            return false;
        }
        state.messages.push_back(message);
        self.queue.changed.notify_one();
        true
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        self.queue.changed.notify_one();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What is in it holds whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, fuse: &OwnedFd) {
        while let Some(message) = self.next() {
            match connection::write(fuse, &message) {
                // ENOENT: the kernel has forgotten the file, and so its pages.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::ENODEV | Errno::ECONNABORTED) => return,
                Err(e) => log::warn!("the kernel refused a notification: {e}"),
            }
        }
    }

    /// The next message; None once there will be none.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if let Some(message) = state.messages.pop_front() {
                return Some(message);
            }
            if state.ended {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
