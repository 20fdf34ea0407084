//! What the event loop of a volume's process and its control thread tell each other. Neither ever
//! waits for the other: they look under a short lock, and wake each other through eventfds.

use crate::serve::protocol::Status;
use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The state that both threads see.
pub(crate) struct Shared {
    state: Mutex<Inner>,
    to_loop: OwnedFd,
    to_control: OwnedFd,
}

struct Inner {
    status: Status,
    wishes: Wishes,
    /// How many wishes there were, how many of them the event loop has taken, and how many the
    /// status knows of.
    wished: u64,
    taken: u64,
    published: u64,
}

/// What clients want the event loop to do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// Publish the counters of this moment.
    pub(crate) publish: bool,
    /// Make a start now that is held back.
    pub(crate) start: bool,
    /// Read the plan again.
    pub(crate) reload: bool,
    /// Unmount and end.
    pub(crate) quit: bool,
    /// End once nothing is open.
    pub(crate) leave: bool,
}

impl Shared {
    pub(crate) fn new(status: Status) -> Result<Self> {
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("make an eventfd")
        };
        Ok(Self {
            state: Mutex::new(Inner {
                status,
                wishes: Wishes::default(),
                wished: 0,
                taken: 0,
                published: 0,
            }),
            to_loop: event()?,
            to_control: event()?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // What is in it holds whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readable when there are wishes.
    pub(crate) fn loop_event(&self) -> BorrowedFd<'_> {
        self.to_loop.as_fd()
    }

    /// Readable when the status was published.
    pub(crate) fn control_event(&self) -> BorrowedFd<'_> {
        self.to_control.as_fd()
    }

    /// Tells the event loop a wish, and returns its number.
    pub(crate) fn wish(&self, wishes: Wishes) -> u64 {
        let number = {
            let mut state = self.lock();
            state.wishes.publish |= wishes.publish;
            state.wishes.start |= wishes.start;
            state.wishes.reload |= wishes.reload;
            state.wishes.quit |= wishes.quit;
            state.wishes.leave |= wishes.leave;
            state.wished += 1;
            state.wished
        };
        wake(&self.to_loop);
        number
    }

    /// Takes all wishes, and the event with them.
    pub(crate) fn take_wishes(&self) -> Wishes {
        quiet(&self.to_loop);
        let mut state = self.lock();
        state.taken = state.wished;
        std::mem::take(&mut state.wishes)
    }

    /// Has clients see `status` from now on.
    pub(crate) fn publish(&self, status: Status) {
        {
            let mut state = self.lock();
            state.status = status;
            state.published = state.taken;
        }
        wake(&self.to_control);
    }

    /// What was published last, with the number of the last wish that it knows of; and takes the
    /// event.
    pub(crate) fn status(&self) -> (Status, u64) {
        quiet(&self.to_control);
        let state = self.lock();
        (state.status.clone(), state.published)
    }
}

fn wake(event: &OwnedFd) {
    // Full: it is readable anyway.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

fn quiet(event: &OwnedFd) {
    // Empty: nobody has woken us.
    let _ = rustix::io::read(event, &mut [0; 8]);
}
