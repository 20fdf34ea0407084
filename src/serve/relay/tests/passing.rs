//! With one daemon: what is passed on, what is not, and that nothing is left in the end.

use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::tests::world::{
    World, entries, handle_in, read_in, rename_in, zero_ended,
};
use crate::serve::relay::wire::{self, ROOT, u32_at, u64_at};
use crate::serve::relay::{MOST_IN_DAEMON, Settings};

#[test]
fn reads_and_writes_with_numbers_of_its_own_and_leaves_nothing() {
    let mut world = World::new(&[("dir/file", b"content")]);
    let dir = world.walk("dir");
    let file = world.lookup(dir, "file").unwrap();
    assert!(file > u64::from(u32::MAX) >> 4, "{file}");
    let handle = world.open(file, 0).unwrap();
    assert_eq!(world.read(file, handle).unwrap(), b"content");
    let (new, writer) = world.create(dir, "new").unwrap();
    world.write(new, writer, b"bytes").unwrap();
    assert_eq!(world.relay.status().writers, 1);
    world.on_handle(Opcode::Flush, new, writer).unwrap();
    world.on_handle(Opcode::Release, new, writer).unwrap();
    world.on_handle(Opcode::Release, file, handle).unwrap();
    let written = world.bucket.paths["dir/new"];
    assert_eq!(world.bucket.files[&written], b"bytes");
    for node in [file, new, dir] {
        world.forget(node, 1);
    }
    let status = world.relay.status();
    assert_eq!((status.nodes, status.handles, status.in_daemon), (1, 0, 0));
    assert!(world.daemon.unwrap().is_empty());
}

#[test]
fn a_batch_of_forgets_reaches_the_daemon_whole() {
    let names: Vec<String> = (0..3000).map(|n| format!("f{n}")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    let mut world = World::new(&files);
    let nodes: Vec<u64> = names
        .iter()
        .map(|name| world.lookup(ROOT, name).unwrap())
        .collect();
    world.lookup(ROOT, "f7").unwrap();
    let mut body = vec![0; 8];
    wire::set_u32(&mut body, 0, 3000);
    for (n, node) in nodes.iter().enumerate() {
        body.extend_from_slice(&node.to_ne_bytes());
        body.extend_from_slice(&(1 + u64::from(n == 7)).to_ne_bytes());
    }
    world.send(opcode::BATCH_FORGET, 0, &body);
    assert!(world.daemon.as_ref().unwrap().inbox.len() <= 3);
    world.run();
    assert_eq!(world.relay.status().nodes, 1);
    assert!(world.daemon.unwrap().is_empty());
}

#[test]
fn what_it_does_not_pass_on_is_answered_at_once() {
    let mut world = World::new(&[("file", b"")]);
    let file = world.walk("file");
    let handle = world.open(file, 0).unwrap();
    for (number, body, expected) in [
        (31, vec![0; 48], Err(38)),
        (37, vec![0; 16], Err(38)),
        (39, vec![0; 32], Err(38)),
        (44, vec![0; 40], Err(38)),
        (45, vec![0; 40], Err(38)),
        (47, vec![0; 56], Err(38)),
        (9999, vec![], Err(38)),
        (opcode::DESTROY, vec![], Ok(vec![])),
        (Opcode::Flush as u32, handle_in(handle).to_vec(), Ok(vec![])),
        (
            Opcode::Read as u32,
            read_in(handle + 1, 0, 1).to_vec(),
            Err(5),
        ),
        (Opcode::Read as u32, read_in(0, 0, 1).to_vec(), Err(5)),
        (
            Opcode::Read as u32,
            read_in(handle, 0, 1 << 18).to_vec(),
            Err(5),
        ),
        (Opcode::Read as u32, vec![0; 12], Err(5)),
    ] {
        let unique = world.send(number, file, &body);
        assert!(world.daemon.as_ref().unwrap().inbox.is_empty(), "{number}");
        assert_eq!(world.answer(unique), expected, "{number}");
    }
    let unique = world.send(Opcode::Getattr as u32, 12345, &[0; 16]);
    assert_eq!(world.answer(unique), Err(5));
}

#[test]
fn shows_the_daemons_uid_as_root_and_generation_zero() {
    let settings = Settings {
        own_uid: Some(0),
        ..Settings::default()
    };
    let mut world = World::with(&[("file", b"12345")], settings);
    let entry = world
        .ask(Opcode::Lookup, ROOT, &zero_ended(&["file"]))
        .unwrap();
    assert_eq!(u64_at(&entry, wire::entry::GENERATION), 0);
    let file = u64_at(&entry, 0);
    let attr = world.ask(Opcode::Getattr, file, &[0; 16]).unwrap();
    assert_eq!(u64_at(&attr, 16 + 8), 5);
    let handle = world.ask(Opcode::Open, file, &[0; 8]).unwrap();
    assert_eq!(u32_at(&handle, 8), 0b111, "no flags that hide FLUSH");
}

#[test]
fn the_bound_of_the_daemon_keeps_one_place_for_its_pulse() {
    let mut world = World::new(&[("file", b"")]);
    let file = world.walk("file");
    let handle = world.open(file, 0).unwrap();
    let asked: Vec<u64> = (0..MOST_IN_DAEMON + 10)
        .map(|_| world.send(Opcode::Read as u32, file, &read_in(handle, 0, 10)))
        .collect();
    assert!(!world.relay.wants_kernel());
    assert_eq!(world.daemon.as_ref().unwrap().inbox.len(), MOST_IN_DAEMON);
    world.later(std::time::Duration::from_secs(3));
    assert_eq!(
        world.daemon.as_ref().unwrap().inbox.len(),
        MOST_IN_DAEMON + 1
    );
    assert_eq!(world.relay.status().unanswered_since, Some(world.now));
    world.run();
    assert!(world.relay.wants_kernel());
    assert_eq!(world.relay.status().unanswered_since, None);
    for unique in asked {
        assert_eq!(world.answer(unique), Ok(vec![]));
    }
}

#[test]
fn a_full_socket_delays_and_loses_nothing() {
    let mut world = World::new(&[("file", b"abc")]);
    let file = world.walk("file");
    world.ends.blocked = true;
    let first = world.send(Opcode::Getattr as u32, file, &[0; 16]);
    assert!(world.relay.wants_writable() && !world.relay.wants_kernel());
    let second = world.send(Opcode::Getattr as u32, file, &[0; 16]);
    world.run();
    assert!(world.answers.is_empty());
    world.unblock();
    assert!(!world.relay.wants_writable() && world.relay.wants_kernel());
    world.run();
    assert!(world.answer(first).is_ok() && world.answer(second).is_ok());
}

#[test]
fn names_follow_renames_and_unlinks() {
    let mut world = World::new(&[("dir/a", b"a"), ("dir/b", b"b"), ("other/c", b"c")]);
    let (dir, other) = (world.walk("dir"), world.walk("other"));
    let (a, b) = (world.walk("dir/a"), world.walk("dir/b"));
    let (on_a, on_b) = (world.open(a, 0).unwrap(), world.open(b, 0).unwrap());
    world
        .ask(Opcode::Rename, dir, &rename_in(other, "a", "moved"))
        .unwrap();
    world
        .ask(Opcode::Rename, ROOT, &rename_in(dir, "other", "below"))
        .unwrap();
    world.ask(Opcode::Unlink, dir, &zero_ended(&["b"])).unwrap();
    assert_eq!(world.read(b, on_b).unwrap(), b"b", "removed and still open");
    world.kill();
    world.start();
    world.run();
    assert_eq!(world.read(a, on_a).unwrap(), b"a");
    assert_eq!(world.read(b, on_b), Err(5), "removed while open");
    assert_eq!(world.walk("dir/below/moved"), a);
    let list = world.opendir(other).unwrap();
    let body = world
        .ask(Opcode::Readdir, other, &read_in(list, 0, 4096))
        .unwrap();
    let names: Vec<String> = entries(&body).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}
