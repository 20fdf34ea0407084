//! What a successor of the relay makes of a RENAME that was under way, of which it hears no end.

use crate::serve::relay::JOURNAL_HEADER;
use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::tests::world::{World, rename_in};
use crate::serve::relay::wire::{ROOT, u32_at};

/// Lets the daemon serve until what it was sent next is the RENAME.
fn until_sent(world: &mut World) {
    let is_next = |world: &World| {
        let next = world.daemon.as_ref().and_then(|it| it.inbox.front());
        next.is_some_and(|message| u32_at(message, 4) == Opcode::Rename as u32)
    };
    while !is_next(world) {
        world.work(0);
        world.deliver(0);
    }
}

fn succeed(world: &mut World) {
    world.kill_relay();
    world.start();
    world.run();
}

#[test]
fn a_rename_in_doubt_gives_nobody_other_bytes() {
    for (executed, compacted) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new(&[("a", b"from a"), ("b", b"from b")]);
        let b = world.walk("b");
        let on_b = world.open(b, 0).unwrap();
        // The next daemon does not have it open, and so does not hide it.
        world.kill();
        world.start();
        world.run();
        let unique = world.send(Opcode::Rename as u32, ROOT, &rename_in(ROOT, "a", "b"));
        until_sent(&mut world);
        if compacted {
            let mut journal = JOURNAL_HEADER.to_vec();
            let add = &mut |record: &crate::serve::relay::Record<'_>| record.encode(&mut journal);
            world.relay.snapshot(add);
            world.ends.journal = journal;
        }
        if executed {
            world.work(0);
        }
        succeed(&mut world);
        assert_eq!(world.answer(unique), Err(5));
        assert_eq!(world.read(b, on_b), Err(5), "{executed} {compacted}");
        assert_ne!(world.lookup(ROOT, "b").unwrap(), b);
    }
}

#[test]
fn a_refused_rename_changes_nothing() {
    let mut world = World::new(&[("b", b"from b")]);
    let b = world.walk("b");
    let on_b = world.open(b, 0).unwrap();
    let unique = world.send(Opcode::Rename as u32, ROOT, &rename_in(ROOT, "a", "b"));
    world.run();
    assert_eq!(world.answer(unique), Err(2));
    succeed(&mut world);
    assert_eq!(world.read(b, on_b), Ok(b"from b".to_vec()));
}
