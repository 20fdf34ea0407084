//! Daemons that die, and the process that keeps the relay, too.

use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::tests::process::Process;
use crate::serve::relay::tests::world::{
    World, handle_in, open_in, read_in, rename_in, write_in, zero_ended,
};
use crate::serve::relay::wire::{ROOT, invalidate_entry, invalidate_inode, u64_at};
use crate::serve::relay::{DaemonFault, Relay, Settings};

const WRONLY: u32 = 1;
const RDWR: u32 = 2;
const TRUNC: u32 = 0o1000;

impl World {
    fn another(&mut self) {
        self.kill();
        self.start();
        self.run();
    }
}

#[test]
fn readers_and_paths_go_on() {
    let mut world = World::new(&[("a/b/c/file", b"content")]);
    let dir = world.walk("a/b/c");
    let file = world.lookup(dir, "file").unwrap();
    let handle = world.open(file, 0).unwrap();
    for _ in 0..3 {
        world.another();
        assert_eq!(world.read(file, handle).unwrap(), b"content");
        assert!(world.ask(Opcode::Getattr, dir, &[0; 16]).is_ok());
        assert_eq!(world.lookup(dir, "file"), Ok(file));
    }
    assert_eq!(world.lookup(dir, "none"), Err(2));
    assert_eq!(world.relay.status().errors, 0);
}

#[test]
fn a_writer_hears_eio_until_he_closes_and_others_do_not() {
    let mut world = World::new(&[("file", b"saved")]);
    let file = world.walk("file");
    let (reader, writer) = (
        world.open(file, 0).unwrap(),
        world.open(file, RDWR).unwrap(),
    );
    world.write(file, writer, b"lost!").unwrap();
    assert_eq!(world.read(file, reader).unwrap(), b"lost!");
    world.kill();
    let notes = [invalidate_inode(file), invalidate_entry(ROOT, b"file")];
    assert_eq!(world.ends.notes, notes);
    for (opcode, body) in [
        (Opcode::Write, write_in(writer, b"more")),
        (Opcode::Read, read_in(writer, 0, 5).to_vec()),
        (Opcode::Flush, handle_in(writer).to_vec()),
        (Opcode::Fsync, handle_in(writer).to_vec()),
        (Opcode::Fallocate, [handle_in(writer), [0; 24]].concat()),
        (Opcode::Lseek, handle_in(writer).to_vec()),
    ] {
        let unique = world.send(opcode as u32, file, &body);
        assert_eq!(world.answer(unique), Err(5), "{opcode:?}");
    }
    world.start();
    world.run();
    assert_eq!(world.on_handle(Opcode::Flush, file, writer), Err(5));
    let attr = [
        &64u32.to_ne_bytes()[..],
        &[0; 4],
        &writer.to_ne_bytes(),
        &[0; 72],
    ]
    .concat();
    assert_eq!(world.ask(Opcode::Setattr, file, &attr), Err(5));
    assert_eq!(world.read(file, reader).unwrap(), b"saved");
    let again = world.open(file, WRONLY).unwrap();
    world.write(file, again, b"again").unwrap();
    assert_eq!(world.on_handle(Opcode::Flush, file, again), Ok(()));
    assert_eq!(world.relay.status().failed, 1);
    assert_eq!(world.on_handle(Opcode::Release, file, writer), Ok(()));
    assert_eq!(world.relay.status().failed, 0);
    assert_eq!(world.read(file, reader).unwrap(), b"again");
}

#[test]
fn a_created_file_that_was_not_saved_is_gone() {
    let mut world = World::new(&[]);
    let (file, writer) = world.create(ROOT, "new").unwrap();
    let reader = world.open(file, 0).unwrap();
    world.another();
    assert_eq!(world.read(file, reader), Err(5));
    assert_eq!(world.on_handle(Opcode::Flush, file, writer), Err(5));
    assert_eq!(world.ask(Opcode::Getattr, file, &[0; 16]), Err(5));
    assert_eq!(world.lookup(ROOT, "new"), Err(2));
    let (other, _) = world.create(ROOT, "new").unwrap();
    assert_ne!(other, file);
    assert_eq!(
        world.read(file, reader),
        Err(5),
        "another file of that name"
    );
}

#[test]
fn what_was_in_flight_is_asked_again_if_it_only_reads() {
    let file_with = |flags| {
        let mut world = World::new(&[("dir/file", b"content")]);
        let dir = world.walk("dir");
        let file = world.walk("dir/file");
        let handle = world.open(file, flags).unwrap();
        (world, dir, file, handle)
    };
    let name = zero_ended(&["new"]);
    let made = |before: usize| [&vec![0; before][..], &name].concat();
    type Body = Box<dyn Fn(u64, u64) -> Vec<u8>>;
    /// The request, its body, the flags of the handle, and the answer; none: the next daemon's.
    type Case = (Opcode, Body, u32, Option<Result<Vec<u8>, i32>>);
    let body = |body: Vec<u8>| -> Body { Box::new(move |_, _| body.clone()) };
    let on_handle = || -> Body { Box::new(|_, handle| handle_in(handle).to_vec()) };
    let on_file = [
        (Opcode::Getattr, body(vec![0; 16]), 0, None),
        (
            Opcode::Read,
            Box::new(|_, handle| read_in(handle, 0, 4).to_vec()),
            0,
            None,
        ),
        (Opcode::Open, body(open_in(0).to_vec()), 0, None),
        (Opcode::Open, body(open_in(RDWR).to_vec()), 0, None),
        (Opcode::Access, body(vec![0; 8]), 0, None),
        (Opcode::Statfs, body(vec![]), 0, None),
        (Opcode::Release, on_handle(), 0, Some(Ok(vec![]))),
        (Opcode::Fsync, on_handle(), 0, Some(Ok(vec![]))),
        (Opcode::Release, on_handle(), RDWR, Some(Ok(vec![]))),
        (
            Opcode::Open,
            body(open_in(RDWR | TRUNC).to_vec()),
            0,
            Some(Err(5)),
        ),
        (Opcode::Setattr, body(vec![0; 88]), 0, Some(Err(5))),
        (Opcode::Removexattr, body(name.clone()), 0, Some(Err(5))),
        (Opcode::Setxattr, body(made(8)), 0, Some(Err(5))),
        (
            Opcode::Write,
            Box::new(|_, handle| write_in(handle, b"x")),
            RDWR,
            Some(Err(5)),
        ),
        (
            Opcode::Read,
            Box::new(|_, handle| read_in(handle, 0, 4).to_vec()),
            RDWR,
            Some(Err(5)),
        ),
        (Opcode::Flush, on_handle(), RDWR, Some(Err(5))),
        (Opcode::Fsync, on_handle(), RDWR, Some(Err(5))),
    ] as [Case; 17];
    let on_dir: [Case; 9] = [
        (Opcode::Lookup, body(zero_ended(&["file"])), 0, None),
        (Opcode::Opendir, body(open_in(0).to_vec()), 0, None),
        (Opcode::Mkdir, body(made(8)), 0, Some(Err(5))),
        (Opcode::Mknod, body(made(16)), 0, Some(Err(5))),
        (Opcode::Create, body(made(16)), 0, Some(Err(5))),
        (Opcode::Unlink, body(zero_ended(&["file"])), 0, Some(Err(5))),
        (Opcode::Rmdir, body(zero_ended(&["file"])), 0, Some(Err(5))),
        (
            Opcode::Symlink,
            body(zero_ended(&["l", "t"])),
            0,
            Some(Err(5)),
        ),
        (
            Opcode::Rename,
            Box::new(|dir, _| rename_in(dir, "file", "x")),
            0,
            Some(Err(5)),
        ),
    ];
    for (at_dir, cases) in [(false, &on_file[..]), (true, &on_dir[..])] {
        for (opcode, body, flags, expected) in cases {
            let (mut world, dir, file, handle) = file_with(*flags);
            let node = if at_dir { dir } else { file };
            let unique = world.send(*opcode as u32, node, &body(dir, handle));
            assert!(world.answers.is_empty(), "{opcode:?}");
            world.kill();
            match expected {
                Some(expected) => assert_eq!(world.answer(unique), *expected, "{opcode:?}"),
                None => {
                    assert!(world.answers.is_empty(), "{opcode:?}");
                    world.start();
                    world.run();
                    assert!(world.answer(unique).is_ok(), "{opcode:?}");
                    assert_eq!(world.relay.status().repeated, 1);
                }
            }
        }
    }
}

#[test]
fn what_came_while_there_was_none_is_done_by_the_next() {
    let mut world = World::new(&[("dir/file", b"content")]);
    let dir = world.walk("dir");
    world.kill();
    let body = [&[0; 8][..], &zero_ended(&["new"])].concat();
    let made = world.send(Opcode::Mkdir as u32, dir, &body);
    let looked = world.send(Opcode::Lookup as u32, dir, &zero_ended(&["file"]));
    world.start();
    world.run();
    assert!(world.answer(made).is_ok());
    assert!(world.answer(looked).is_ok());
    assert!(world.bucket.paths.contains_key("dir/new"));
}

#[test]
fn a_rename_in_doubt_gives_nobody_other_bytes() {
    for executed in [false, true] {
        let mut world = World::new(&[("a", b"from a"), ("b", b"from b")]);
        let (a, b) = (world.walk("a"), world.walk("b"));
        let (on_a, on_b) = (world.open(a, 0).unwrap(), world.open(b, 0).unwrap());
        let unique = world.send(Opcode::Rename as u32, ROOT, &rename_in(ROOT, "a", "b"));
        if executed {
            world.work(0);
        }
        world.another();
        assert_eq!(world.answer(unique), Err(5));
        assert_eq!(world.read(b, on_b), Err(5));
        let expected = if executed {
            Err(5)
        } else {
            Ok(b"from a".to_vec())
        };
        assert_eq!(world.read(a, on_a), expected);
        assert_ne!(world.lookup(ROOT, "b").unwrap(), b);
    }
}

#[test]
fn another_file_of_a_name_is_another_node() {
    for looked_up_meanwhile in [false, true] {
        let mut world = World::new(&[("name", b"old")]);
        let old = world.walk("name");
        let reader = world.open(old, 0).unwrap();
        world.another();
        // Somebody else removes it, and perhaps makes it anew.
        let number = world.bucket.paths.remove("name").unwrap();
        let new = match looked_up_meanwhile {
            true => {
                assert_eq!(world.lookup(ROOT, "name"), Err(2));
                world.bucket.paths.insert("name".to_owned(), number);
                world.lookup(ROOT, "name").unwrap()
            }
            false => world.create(ROOT, "name").unwrap().0,
        };
        assert_ne!(new, old);
        assert_eq!(world.read(old, reader), Err(5));
    }
}

#[test]
fn a_file_that_became_a_directory_is_another_one() {
    let mut world = World::new(&[("name", b"content")]);
    let file = world.walk("name");
    let handle = world.open(file, 0).unwrap();
    world.kill();
    let number = world.bucket.paths["name"];
    world.bucket.files.remove(&number);
    world.start();
    world.run();
    assert_eq!(world.read(file, handle), Err(5));
    assert_ne!(world.lookup(ROOT, "name").unwrap(), file);
}

#[test]
fn a_daemon_with_other_limits_is_refused() {
    let mut world = World::new(&[]);
    world.kill();
    let mut daemon = Process::new(9);
    daemon.max_write = 4096;
    world.start_with(daemon);
    world.work(0);
    world.deliver(0);
    assert!(world.relay.status().initialised && !world.relay.status().answered);
    world.work(0);
    let mut answer = world.outbox.pop_front().unwrap();
    assert_eq!(world.give(&mut answer), Err(DaemonFault::LimitsDiffer));
    world.another();
    assert!(world.relay.status().initialised);
}

#[test]
fn what_a_daemon_agrees_to_that_gives_up_at_once_counts_for_nothing() {
    let mut world = World::new(&[("file", b"content")]);
    let file = world.walk("file");
    world.kill();
    let body = [&[0; 8][..], &zero_ended(&["new"])].concat();
    let made = world.send(Opcode::Mkdir as u32, ROOT, &body);
    for generation in 20..40 {
        let mut daemon = Process::new(generation);
        daemon.max_write = 4096;
        world.start_with(daemon);
        world.work(0);
        world.deliver(0);
        world.kill();
    }
    assert!(world.answers.is_empty(), "it was asked of none of them");
    world.start();
    world.run();
    assert!(world.answer(made).is_ok());
    assert!(world.ask(Opcode::Getattr, file, &[0; 16]).is_ok());
}

#[test]
fn a_request_that_daemons_die_of_is_asked_of_five() {
    let mut world = World::new(&[("file", b"content")]);
    let file = world.walk("file");
    let handle = world.open(file, 0).unwrap();
    let read = world.send(Opcode::Read as u32, file, &read_in(handle, 0, 7));
    for _ in 0..4 {
        world.kill();
        assert!(world.answers.is_empty());
        world.start();
        while world.daemon.as_ref().unwrap().inbox[0][4] != Opcode::Read as u8 {
            world.work(0);
            world.deliver(0);
        }
    }
    world.kill();
    assert_eq!(world.answer(read), Err(5));
    world.start();
    world.run();
    assert_eq!(world.read(file, handle).unwrap(), b"content");
}

#[test]
fn the_root_is_known_while_no_daemon_serves() {
    let mut world = World::new(&[]);
    let attr = world.ask(Opcode::Getattr, ROOT, &[0; 16]).unwrap();
    for restarted in [false, true] {
        match restarted {
            true => world.kill_relay(),
            false => world.kill(),
        }
        let unique = world.send(Opcode::Getattr as u32, ROOT, &[0; 16]);
        assert_eq!(world.answer(unique), Ok(attr.clone()));
        world.start();
        let unique = world.send(Opcode::Getattr as u32, ROOT, &[0; 16]);
        assert_eq!(world.answer(unique), Ok(attr.clone()));
        let statfs = world.send(Opcode::Statfs as u32, ROOT, &[]);
        assert_eq!(world.answers.contains_key(&statfs), !restarted);
        world.run();
    }
}

#[test]
fn who_opens_what_was_never_saved_looks_it_up_anew() {
    const ESTALE: i32 = 116;
    let mut world = World::new(&[]);
    let (file, writer) = world.create(ROOT, "new").unwrap();
    world.another();
    world.on_handle(Opcode::Release, file, writer).unwrap();
    world.ends.notes.clear();
    let open = open_in(1);
    assert_eq!(world.ask(Opcode::Open, file, &open), Err(ESTALE));
    assert_eq!(world.ends.notes, [invalidate_entry(ROOT, b"new")]);
    assert_eq!(world.ask(Opcode::Open, file, &open), Err(5), "once only");
    assert_eq!(world.lookup(ROOT, "new"), Err(2));
    assert!(world.create(ROOT, "new").is_ok());
}

#[test]
fn a_death_on_the_way_back_is_survived() {
    // INIT and STATFS, four LOOKUPs, OPEN, READ: it dies before or after each of the answers.
    for steps in 0..16 {
        let mut world = World::new(&[("a/b/c/file", b"content")]);
        let file = world.walk("a/b/c/file");
        let handle = world.open(file, 0).unwrap();
        world.kill();
        let unique = world.send(Opcode::Read as u32, file, &read_in(handle, 0, 100));
        world.start();
        for step in 0..steps {
            match step % 2 {
                0 => world.work(0),
                _ => world.deliver(0),
            }
        }
        assert_eq!(world.asked.is_empty(), steps == 16, "{steps}");
        world.another();
        assert_eq!(world.answer(unique).unwrap(), b"content");
    }
}

#[test]
fn nothing_of_a_dead_daemon_is_forgotten_at_the_next() {
    let mut world = World::new(&[("a/b/file", b"content")]);
    let (a, b, file) = (world.walk("a"), world.walk("a/b"), world.walk("a/b/file"));
    world.another();
    let handle = world.open(file, 0).unwrap();
    world.on_handle(Opcode::Release, file, handle).unwrap();
    // As often as the kernel was told: in walk() and on the way.
    world.forget(file, 1);
    world.forget(b, 2);
    assert_eq!(world.relay.status().nodes, 2);
    world.forget(a, 3);
    assert_eq!(world.relay.status().nodes, 1);
    assert!(world.daemon.unwrap().is_empty());
}

#[test]
fn the_tables_outlive_the_process() {
    let mut world = World::new(&[("a/file", b"content"), ("a/other", b"")]);
    let file = world.walk("a/file");
    let (reader, writer) = (
        world.open(file, 0).unwrap(),
        world.open(file, RDWR).unwrap(),
    );
    world
        .ask(Opcode::Rename, ROOT, &rename_in(ROOT, "a", "z"))
        .unwrap();
    let read = world.send(Opcode::Read as u32, file, &read_in(reader, 0, 100));
    world.kill_relay();
    assert_eq!(world.answer(read), Err(5));
    assert_eq!(world.ends.notes[0], invalidate_inode(file));
    assert_eq!(world.ends.notes.len(), 2);
    world.start();
    world.run();
    assert_eq!(world.read(file, reader).unwrap(), b"content");
    assert_eq!(world.on_handle(Opcode::Flush, file, writer), Err(5));
    assert_eq!(world.walk("z/file"), file);
    world.kill_relay();
    assert_eq!(world.on_handle(Opcode::Flush, file, writer), Err(5));
    world.start();
    world.run();
    assert_eq!(world.read(file, reader).unwrap(), b"content");
}

#[test]
fn what_the_kernel_hands_over_again_is_repeated_unless_it_changes_something() {
    let mut world = World::new(&[("file", b"content"), ("other", b"")]);
    let file = world.walk("file");
    let reader = world.open(file, 0).unwrap();
    let writer = world.open(file, 2).unwrap();
    world.kill_relay();
    world.start();
    let read = world.send_again(Opcode::Read as u32, file, &read_in(reader, 0, 7));
    let lookup = world.send_again(Opcode::Lookup as u32, ROOT, &zero_ended(&["other"]));
    let truncating = world.send_again(Opcode::Open as u32, file, &open_in(0o1001));
    let write = world.send_again(Opcode::Write as u32, file, &write_in(writer, b"x"));
    let unlink = world.send_again(Opcode::Unlink as u32, ROOT, &zero_ended(&["other"]));
    for changed in [truncating, write, unlink] {
        assert_eq!(world.answer(changed), Err(5));
    }
    world.run();
    assert_eq!(world.answer(read).unwrap(), b"content");
    assert!(world.answer(lookup).is_ok());
    assert_eq!(world.read(file, reader).unwrap(), b"content");
}

#[test]
fn a_restored_relay_without_inits_answer_asks_again() {
    let relay = Relay::restore(
        Settings::default(),
        crate::serve::relay::JOURNAL_HEADER,
        &[],
    );
    assert!(!relay.unwrap().status().initialised);
}

#[test]
fn the_daemons_numbers_never_reach_the_kernel() {
    let mut world = World::new(&[("file", b"")]);
    let entry = world
        .ask(Opcode::Lookup, ROOT, &zero_ended(&["file"]))
        .unwrap();
    let file = u64_at(&entry, 0);
    assert!(!(1_000_000..3_000_000).contains(&file));
    let handle = world.open(file, 0).unwrap();
    assert!(!(1_000_000..3_000_000).contains(&handle));
}
