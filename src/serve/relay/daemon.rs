//! What the daemon answers: checked first, as from an enemy, and only then believed.

use crate::serve::relay::listing::{Listing, Page};
use crate::serve::relay::opcode::{Body, Opcode};
use crate::serve::relay::requests::{Origin, Purpose, Request, State};
use crate::serve::relay::send::{EIO, ENOSYS};
use crate::serve::relay::wire::{self, OUT_HEADER, set_u32, set_u64, u32_at, u64_at};
use crate::serve::relay::{DaemonFault, Link, Relay};
use std::time::Instant;

/// The errors that an answer may carry (libfuse: above -1000).
const ERRORS: std::ops::RangeInclusive<i32> = -999..=0;
/// The kernel takes no answer with these and below; they are its own.
const KERNEL_ERRORS: i32 = -512;
/// Pages of a listing that may be left out whole after a death: 128 KiB each.
const MOST_PAGES: u32 = 10_000;

impl Relay {
    /// Takes one packet of the daemon's; it is rewritten in place for the kernel. After an error
    /// the daemon is to be killed, and then [`Relay::daemon_ended`] called.
    pub fn from_daemon(
        &mut self,
        message: &mut [u8],
        now: Instant,
        link: &mut dyn Link,
    ) -> Result<(), DaemonFault> {
        self.now = now;
        if message.len() < OUT_HEADER
            || u32_at(message, wire::answer::LEN) as usize != message.len()
        {
            return Err(DaemonFault::Length);
        }
        let unique = u64_at(message, wire::answer::UNIQUE);
        if unique == 0 {
            // A notification: what it would tell is the relay's to tell.
            return Ok(());
        }
        let slot = self
            .requests
            .find(unique)
            .ok_or(DaemonFault::UnknownRequest)?;
        self.answered(slot, message, link)?;
        self.fill_room(link);
        self.flush_forgets(link);
        Ok(())
    }

    fn answered(
        &mut self,
        slot: usize,
        message: &mut [u8],
        link: &mut dyn Link,
    ) -> Result<(), DaemonFault> {
        let Some(request) = self.requests.get(slot) else {
            return Err(DaemonFault::UnknownRequest);
        };
        check(request, message)?;
        if let Origin::Own(Purpose::Init) = request.origin {
            return self.init_answered(slot, message, link);
        }
        let mut answer = &mut *message;
        if request.opcode == Opcode::Readdir && request.is_kernels() && error(answer) == 0 {
            let handle = request.handle.and_then(|id| self.handles.get_mut(id));
            let body = &mut answer[OUT_HEADER..];
            let mut unknown = Listing::default();
            let listing = match handle {
                Some(handle) => handle.listing.get_or_insert_default(),
                None => &mut unknown,
            };
            match listing.page(body).map_err(|_| DaemonFault::Listing)? {
                Page::Again(position) => {
                    self.ask_again(slot, position, link);
                    return Ok(());
                }
                Page::Give(length) => {
                    answer = &mut answer[..OUT_HEADER + length];
                    set_u32(answer, wire::answer::LEN, (OUT_HEADER + length) as u32);
                }
            }
        }
        let Some(request) = self.requests.take(slot) else {
            return Err(DaemonFault::UnknownRequest);
        };
        let result = self.apply(&request, answer, link);
        if let (Err(_), Origin::Kernel(unique)) = (&result, request.origin) {
            self.answer(unique, EIO, link);
        }
        self.release_handle(&request, link);
        self.finish(request, link);
        result
    }

    /// A page of a listing had been given before: asks for the next.
    fn ask_again(&mut self, slot: usize, position: u64, link: &mut dyn Link) {
        self.requests.wait(slot, State::Room);
        let Some(request) = self.requests.get_mut(slot) else {
            return;
        };
        request.again = Some(position);
        request.pages += 1;
        let (pages, id) = (request.pages, request.handle);
        if let Some(handle) = id.and_then(|id| self.handles.get_mut(id)) {
            handle.users -= 1;
        }
        if pages > MOST_PAGES {
            return self.fail(slot, EIO, link);
        }
        self.advance(slot, None, link);
    }

    /// The daemon has ended a request on a handle.
    fn release_handle(&mut self, request: &Request, link: &mut dyn Link) {
        let Some(id) = request.handle else { return };
        if let Some(handle) = self.handles.get_mut(id) {
            handle.users = handle.users.saturating_sub(1);
            self.close_unused(id, link);
        }
    }

    /// Believes an answer, and gives it to whom it is for.
    fn apply(
        &mut self,
        request: &Request,
        message: &mut [u8],
        link: &mut dyn Link,
    ) -> Result<(), DaemonFault> {
        let mut error = error(message);
        match (request.opcode, error) {
            // The kernel would not ask again, and then nobody could be told of lost writes.
            (Opcode::Flush | Opcode::Fsync, ENOSYS) => error = 0,
            (Opcode::Open | Opcode::Opendir, ENOSYS) => error = EIO,
            (_, error_now) if -error_now <= KERNEL_ERRORS => error = EIO,
            _ => {}
        }
        set_u32(message, wire::answer::ERROR, (-error).cast_unsigned());
        match request.origin {
            Origin::Own(purpose) => self.own_answered(purpose, request, error, message, link),
            Origin::Abandoned => self.believe(request, error, message, link),
            Origin::Kernel(unique) => {
                self.believe(request, error, message, link)?;
                set_u64(message, wire::answer::UNIQUE, unique);
                self.counts.served += 1;
                link.to_kernel(message);
                Ok(())
            }
        }
    }
}

/// The errno of an answer, 0 or positive.
fn error(message: &[u8]) -> i32 {
    u32_at(message, wire::answer::ERROR)
        .cast_signed()
        .wrapping_neg()
}

/// Whether the answer can be one to the request at all.
fn check(request: &Request, message: &[u8]) -> Result<(), DaemonFault> {
    let error = u32_at(message, wire::answer::ERROR).cast_signed();
    if !ERRORS.contains(&error) {
        return Err(DaemonFault::Error(error));
    }
    let body = &message[OUT_HEADER..];
    if error != 0 {
        return fits(body.is_empty());
    }
    let length = body.len();
    let asked = request.size as usize;
    fits(match request.opcode.body() {
        _ if request.opcode == Opcode::Init => return Ok(()),
        Body::Nothing => length == 0,
        Body::Exact(exact) => length == exact,
        Body::Entry => length == wire::ENTRY_OUT,
        Body::Create => length == wire::ENTRY_OUT + wire::OPEN_OUT,
        Body::Data => length <= asked,
        Body::DataOrSize if asked == 0 => length == wire::GETXATTR_OUT,
        Body::DataOrSize => length <= asked,
        Body::Path => length < 4096,
    })?;
    fits(request.opcode != Opcode::Write || u32_at(body, 0) <= request.size)?;
    match request.opcode.body() {
        Body::Entry | Body::Create => {
            let node = u64_at(body, wire::entry::NODE);
            let none = node == 0 && request.opcode != Opcode::Lookup;
            match node == wire::ROOT || none {
                true => Err(DaemonFault::Node),
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn fits(fits: bool) -> Result<(), DaemonFault> {
    match fits {
        true => Ok(()),
        false => Err(DaemonFault::Length),
    }
}
