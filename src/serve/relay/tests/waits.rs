//! Requests that take long: signals, a silent store, a hung daemon.

use crate::serve::relay::Settings;
use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::tests::world::{World, handle_in, open_in, read_in, write_in, zero_ended};
use crate::serve::relay::wire::ROOT;
use std::time::Duration;

const EINTR: i32 = 4;
const SECOND: Duration = Duration::from_secs(1);
const QUARTER: Duration = Duration::from_millis(250);

impl World {
    /// The daemon serves its request `n` from the end, and the answer is taken.
    fn serve_last(&mut self) {
        let last = self.daemon.as_ref().unwrap().inbox.len() - 1;
        self.work(last);
        while !self.outbox.is_empty() {
            self.deliver(0);
        }
    }
}

#[test]
fn a_mere_signal_fails_no_call_and_a_later_sigkill_ends_it() {
    let mut world = World::new(&[]);
    let body = [&[0; 8][..], &zero_ended(&["dir"])].concat();
    let unique = world.send(Opcode::Mkdir as u32, ROOT, &body);
    world.interrupt(unique);
    for _ in 0..20 {
        world.later(QUARTER);
    }
    assert!(world.answers.is_empty());
    world.ends.killed.insert(1000);
    world.later(QUARTER);
    assert_eq!(world.answer(unique), Err(EINTR));
    assert_eq!(world.relay.status().abandoned, 1);
    world.run();
    assert_eq!(world.daemon.as_ref().unwrap().known_nodes(), 0, "forgotten");
}

#[test]
fn a_caller_that_was_killed_without_interrupt_goes_within_a_second() {
    let mut world = World::new(&[("file", b"")]);
    let unique = world.send(Opcode::Lookup as u32, ROOT, &zero_ended(&["file"]));
    world.ends.killed.insert(1000);
    assert_eq!(world.relay.next_tick(), Some(world.now + SECOND));
    world.later(SECOND);
    assert_eq!(world.answer(unique), Err(EINTR));
    world.run();
    assert_eq!(world.daemon.as_ref().unwrap().known_nodes(), 0);
    assert_eq!(world.relay.status().nodes, 1);
}

#[test]
fn a_late_open_is_closed_and_a_late_create_forgotten_after_it() {
    let mut world = World::new(&[("file", b"")]);
    let file = world.walk("file");
    world.ends.killed.insert(7);
    let open = world.send_from(7, Opcode::Open as u32, file, &open_in(0));
    let body = [&[0; 16][..], &zero_ended(&["new"])].concat();
    let create = world.send_from(7, Opcode::Create as u32, ROOT, &body);
    for unique in [open, create] {
        world.interrupt(unique);
        assert_eq!(world.answer(unique), Err(EINTR));
    }
    world.run();
    let daemon = world.daemon.as_ref().unwrap();
    assert_eq!((daemon.open_handles(), daemon.known_nodes()), (0, 1));
    assert_eq!(world.relay.status().handles, 0);
}

#[test]
fn release_waits_for_the_read_that_its_caller_left() {
    let mut world = World::new(&[("file", b"content")]);
    let file = world.walk("file");
    let handle = world.open(file, 0).unwrap();
    let read = world.send_from(7, Opcode::Read as u32, file, &read_in(handle, 0, 7));
    world.ends.killed.insert(7);
    world.interrupt(read);
    assert_eq!(world.answer(read), Err(EINTR));
    for opcode in [Opcode::Flush, Opcode::Release] {
        let unique = world.send_from(7, opcode as u32, file, &handle_in(handle));
        assert_eq!(world.answer(unique), Ok(vec![]), "{opcode:?}");
    }
    world.forget(file, 1);
    // Served in order, RELEASE would have come with READ; the daemon checks that it does not.
    world.run();
    let daemon = world.daemon.as_ref().unwrap();
    assert!(daemon.is_empty());
    assert_eq!(world.relay.status().nodes, 1);
}

#[test]
fn flush_is_never_let_go_while_the_daemon_lives() {
    let mut world = World::new(&[("file", b"")]);
    let file = world.walk("file");
    let handle = world.open(file, 1).unwrap();
    world.ends.killed.insert(1000);
    let unique = world.send(Opcode::Flush as u32, file, &handle_in(handle));
    world.interrupt(unique);
    world.later(10 * SECOND);
    assert!(world.answers.is_empty());
    world.run();
    assert_eq!(world.answer(unique), Ok(vec![]));
}

#[test]
fn a_write_that_its_caller_left_comes_before_what_follows() {
    let mut world = World::new(&[("file", b"")]);
    let file = world.walk("file");
    let handle = world.open(file, 1).unwrap();
    let left = world.send_from(7, Opcode::Write as u32, file, &write_in(handle, b"left"));
    world.ends.killed.insert(7);
    world.interrupt(left);
    assert_eq!(world.answer(left), Err(EINTR));
    let next = world.send(Opcode::Write as u32, file, &write_in(handle, b"next"));
    let flush = world.send(Opcode::Flush as u32, file, &handle_in(handle));
    assert_eq!(world.daemon.as_ref().unwrap().inbox.len(), 1, "they wait");
    world.run();
    assert!(world.answer(next).is_ok() && world.answer(flush).is_ok());
    let number = world.bucket.paths["file"];
    assert_eq!(world.bucket.files[&number], b"next");
}

#[test]
fn callers_go_while_there_is_no_daemon() {
    let mut world = World::new(&[("file", b"")]);
    let file = world.walk("file");
    world.kill();
    let unique = world.send(Opcode::Getattr as u32, file, &[0; 16]);
    world.later(SECOND);
    assert!(world.answers.is_empty());
    world.ends.killed.insert(1000);
    world.later(SECOND);
    assert_eq!(world.answer(unique), Err(EINTR));
    world.start();
    world.run();
}

#[test]
fn a_silent_store_is_told_from_a_hung_daemon() {
    let mut world = World::new(&[("file", b"")]);
    let file = world.walk("file");
    let handle = world.open(file, 0).unwrap();
    assert!(world.relay.status().answered);
    world.send(Opcode::Read as u32, file, &read_in(handle, 0, 1));
    for _ in 0..40 {
        world.later(QUARTER);
        if world.daemon.as_ref().unwrap().inbox.len() > 1 {
            world.serve_last();
        }
        let status = world.relay.status();
        assert_eq!(status.unanswered_since, None, "it answers");
        assert_eq!((status.requests, status.in_daemon), (1, 1));
    }
    for _ in 0..40 {
        world.later(QUARTER);
    }
    let since = world.relay.status().unanswered_since.unwrap();
    assert!(world.now - since > 8 * SECOND);
    world.run();
    assert_eq!(world.relay.status().unanswered_since, None);
}

#[test]
fn requests_time_out_only_while_no_daemon_answers() {
    let settings = Settings {
        request_timeout: Some(5 * SECOND),
        ..Settings::default()
    };
    let mut world = World::with(&[("file", b"")], settings);
    let file = world.walk("file");
    let handle = world.open(file, 1).unwrap();
    let flush = world.send(Opcode::Flush as u32, file, &handle_in(handle));
    for _ in 0..60 {
        world.later(QUARTER);
        if world.daemon.as_ref().unwrap().inbox.len() > 1 {
            world.serve_last();
        }
    }
    assert!(world.answers.is_empty(), "a slow upload");
    for _ in 0..20 {
        world.later(QUARTER);
    }
    assert_eq!(world.answer(flush), Err(5));
    world.kill();
    let unique = world.send(Opcode::Getattr as u32, file, &[0; 16]);
    for _ in 0..21 {
        world.later(QUARTER);
    }
    assert_eq!(world.answer(unique), Err(5));
}

#[test]
fn nobody_is_looked_at_more_often_than_every_quarter_second() {
    let mut world = World::new(&[("file", b"")]);
    world.send(Opcode::Lookup as u32, ROOT, &zero_ended(&["file"]));
    world.later(SECOND);
    assert_eq!(world.relay.next_tick(), Some(world.now + QUARTER));
    world.run();
    world.later(SECOND);
    assert_eq!(world.relay.next_tick(), None, "nothing waits");
}
