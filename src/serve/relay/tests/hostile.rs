//! A daemon that lies: each lie is a fault, and the relay goes on with the next daemon.

use crate::serve::relay::DaemonFault;
use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::tests::world::{World, open_in, read_in, write_in, zero_ended};
use crate::serve::relay::wire::{self, ROOT, set_u32, set_u64, u64_at};
use proptest::prelude::*;

/// A world in which the daemon has one request of each kind, and what it would answer to the last.
fn asked(opcode: Opcode) -> (World, Vec<u8>) {
    let mut world = World::new(&[("dir/file", b"content"), ("other", b"")]);
    let (dir, file) = (world.walk("dir"), world.walk("dir/file"));
    let handle = world.open(file, 2).unwrap();
    let list = world.opendir(dir).unwrap();
    let made = [&[0; 16][..], &zero_ended(&["new"])].concat();
    let (node, body) = match opcode {
        Opcode::Lookup => (dir, zero_ended(&["file"])),
        Opcode::Create => (dir, made),
        Opcode::Open => (file, open_in(0).to_vec()),
        Opcode::Read => (file, read_in(handle, 0, 4).to_vec()),
        Opcode::Write => (file, write_in(handle, b"abcd")),
        Opcode::Readdir => (dir, read_in(list, 0, 4096).to_vec()),
        Opcode::Getattr => (file, vec![0; 16]),
        other => panic!("{other:?}"),
    };
    world.send(opcode as u32, node, &body);
    world.work(0);
    let answer = world.outbox.pop_front().unwrap();
    (world, answer)
}

fn set_length(answer: &mut Vec<u8>, length: usize) {
    answer.resize(length, 0);
    set_u32(answer, 0, length as u32);
}

#[test]
fn lies_are_faults_and_reach_nobody() {
    type Lie = fn(&mut Vec<u8>);
    let cases: [(&str, Opcode, Lie, DaemonFault); 16] = [
        (
            "no header",
            Opcode::Read,
            |a| a.truncate(15),
            DaemonFault::Length,
        ),
        (
            "another length",
            Opcode::Read,
            |a| set_u32(a, 0, 1 << 30),
            DaemonFault::Length,
        ),
        (
            "more than asked",
            Opcode::Read,
            |a| set_length(a, 21),
            DaemonFault::Length,
        ),
        (
            "half an entry",
            Opcode::Lookup,
            |a| set_length(a, 80),
            DaemonFault::Length,
        ),
        (
            "an error with a body",
            Opcode::Lookup,
            |a| set_u32(a, 4, -2i32 as u32),
            DaemonFault::Length,
        ),
        (
            "no handle",
            Opcode::Create,
            |a| set_length(a, 16 + 128),
            DaemonFault::Length,
        ),
        (
            "more written than asked",
            Opcode::Write,
            |a| set_u32(a, 16, 5),
            DaemonFault::Length,
        ),
        (
            "a positive error",
            Opcode::Getattr,
            |a| {
                set_length(a, 16);
                set_u32(a, 4, 2)
            },
            DaemonFault::Error(2),
        ),
        (
            "a huge error",
            Opcode::Getattr,
            |a| {
                set_length(a, 16);
                set_u32(a, 4, i32::MIN as u32)
            },
            DaemonFault::Error(i32::MIN),
        ),
        (
            "an unknown unique",
            Opcode::Getattr,
            |a| set_u64(a, 8, u64::MAX),
            DaemonFault::UnknownRequest,
        ),
        (
            "the kernel's unique",
            Opcode::Getattr,
            |a| set_u64(a, 8, 2),
            DaemonFault::UnknownRequest,
        ),
        (
            "the root below itself",
            Opcode::Lookup,
            |a| set_u64(a, 16, 1),
            DaemonFault::Node,
        ),
        (
            "a file that is none",
            Opcode::Create,
            |a| set_u64(a, 16, 0),
            DaemonFault::Node,
        ),
        (
            "a name of no length",
            Opcode::Readdir,
            |a| set_u32(a, 32, 0),
            DaemonFault::Listing,
        ),
        (
            "a name of any length",
            Opcode::Readdir,
            |a| set_u32(a, 32, u32::MAX),
            DaemonFault::Listing,
        ),
        (
            "a name with a slash",
            Opcode::Readdir,
            |a| a[40] = b'/',
            DaemonFault::Listing,
        ),
    ];
    for (name, opcode, lie, fault) in cases {
        let (mut world, mut answer) = asked(opcode);
        lie(&mut answer);
        assert_eq!(world.give(&mut answer), Err(fault), "{name}");
        assert!(world.answers.is_empty(), "{name}");
        world.kill();
        world.start();
        world.run();
        assert!(world.asked.is_empty(), "{name}: it is answered in the end");
    }
}

#[test]
fn a_directory_below_itself_is_a_fault_and_its_caller_is_answered() {
    let mut world = World::new(&[("a/b/file", b"")]);
    let (a, b) = (world.walk("a"), world.walk("a/b"));
    world.send(Opcode::Lookup as u32, ROOT, &zero_ended(&["a"]));
    world.work(0);
    let mut of_a = world.outbox.pop_front().unwrap();
    let number = u64_at(&of_a, 16);
    world.give(&mut of_a).unwrap();
    let unique = world.send(Opcode::Lookup as u32, b, &zero_ended(&["file"]));
    world.work(0);
    let mut answer = world.outbox.pop_front().unwrap();
    set_u64(&mut answer, 16, number);
    assert_eq!(world.give(&mut answer), Err(DaemonFault::Node));
    assert_eq!(world.answer(unique), Err(5));
    world.kill();
    world.start();
    world.run();
    assert_eq!(world.walk("a"), a);
}

#[test]
fn an_answer_counts_once_and_a_notification_never() {
    let (mut world, mut answer) = asked(Opcode::Getattr);
    let mut again = answer.clone();
    world.give(&mut answer).unwrap();
    assert_eq!(world.give(&mut again), Err(DaemonFault::UnknownRequest));
    let mut note = wire::invalidate_inode(ROOT);
    assert_eq!(world.give(&mut note), Ok(()));
    assert!(world.ends.notes.is_empty());
}

#[test]
fn init_is_answered_once_and_rightly() {
    for (lie, fault) in [
        (
            &(|a: &mut Vec<u8>| set_u32(a, 16, 8)) as &dyn Fn(&mut Vec<u8>),
            DaemonFault::Init,
        ),
        (&|a| set_u32(a, 20, 3), DaemonFault::Init),
        (&|a| set_length(a, 17), DaemonFault::Init),
        (
            &|a| {
                set_length(a, 16);
                set_u32(a, 4, -5i32 as u32)
            },
            DaemonFault::Init,
        ),
    ] {
        let mut world = World::new(&[]);
        world.kill();
        world.start();
        world.work(0);
        let mut answer = world.outbox.pop_front().unwrap();
        lie(&mut answer);
        assert_eq!(world.give(&mut answer), Err(fault));
        world.kill();
        world.start();
        world.work(0);
        let mut answer = world.outbox.pop_front().unwrap();
        let mut twice = answer.clone();
        assert_eq!(world.give(&mut answer), Ok(()));
        assert_eq!(world.give(&mut twice), Err(DaemonFault::UnknownRequest));
    }
}

#[test]
fn enosys_does_not_make_the_kernel_stop_asking() {
    for (opcode, expected) in [(Opcode::Open, Err(5)), (Opcode::Getattr, Err(38))] {
        let (mut world, mut answer) = asked(opcode);
        let unique = *world.asked.iter().next().unwrap();
        set_length(&mut answer, 16);
        set_u32(&mut answer, 4, -38i32 as u32);
        world.give(&mut answer).unwrap();
        assert_eq!(world.answer(unique), expected);
    }
}

#[test]
fn a_listing_that_never_gives_anything_new_ends() {
    let mut world = World::new(&[("name", b"")]);
    let handle = world.opendir(ROOT).unwrap();
    let (_, position) = world.list(ROOT, handle, 0).unwrap();
    world.kill();
    world.start();
    world.run();
    let unique = world.send(
        Opcode::Readdir as u32,
        ROOT,
        &read_in(handle, position, 4096),
    );
    for _ in 0..20_000 {
        if world.answers.contains_key(&unique) {
            break;
        }
        // It gives the same page, whatever it is asked for.
        let inbox = &mut world.daemon.as_mut().unwrap().inbox;
        if let Some(message) = inbox.front_mut().filter(|message| message[4] == 28) {
            set_u64(message, 48, 0);
        }
        world.work(0);
        while !world.outbox.is_empty() {
            world.deliver(0);
        }
    }
    assert_eq!(world.answer(unique), Err(5));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any bytes instead of an answer, or any change to one: no panic, no growth, and everybody is
    /// answered once.
    #[test]
    fn any_answer_is_survived(
        which in 0..7usize,
        changes in prop::collection::vec((0..200usize, any::<u8>()), 0..4),
        length in prop::option::of(0..300usize),
    ) {
        let opcode = [
            Opcode::Lookup, Opcode::Create, Opcode::Open, Opcode::Read, Opcode::Write,
            Opcode::Readdir, Opcode::Getattr,
        ][which];
        let (mut world, mut answer) = asked(opcode);
        let before = world.relay.status();
        if let Some(length) = length {
            set_length(&mut answer, length.max(4));
        }
        for (at, byte) in changes {
            if let Some(place) = answer.get_mut(at) {
                *place = byte;
            }
        }
        let result = world.give(&mut answer);
        let after = world.relay.status();
        prop_assert!(after.nodes <= before.nodes + 1 && after.handles <= before.handles + 1);
        prop_assert!(result.is_ok() || world.answers.len() <= 1);
        world.kill();
        world.start();
        world.run();
        prop_assert!(world.asked.is_empty());
    }
}
