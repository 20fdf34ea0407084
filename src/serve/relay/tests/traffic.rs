//! Random traffic and deaths against a model of what the kernel holds: every answer comes once, no
//! byte is another file's, no error is other than the rule allows, what was saved is in the bucket,
//! and in the end nothing is left, in the relay or in the daemon.

use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::tests::holder::{Asked, Holder};
use crate::serve::relay::wire::ROOT;
use proptest::prelude::*;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
enum Step {
    Lookup(usize, usize),
    Create(usize, usize),
    Make(usize, usize, bool),
    Unlink(usize, usize),
    Rename(usize, usize, usize, usize),
    Open(usize, u32),
    Opendir(usize),
    Getattr(usize),
    Use(usize, usize),
    Close(usize),
    Forget(usize),
    /// The daemon serves one of its requests.
    Work(usize),
    /// The relay takes one of its answers.
    Deliver(usize),
    Run,
    Kill(usize, bool),
    Start,
    Restart,
    Signal(usize, bool),
    Later(u64),
    Block,
    Unblock,
}

fn step() -> impl Strategy<Value = Step> {
    let n = || 0..64usize;
    let yes = any::<bool>;
    let flags = prop_oneof![4 => Just(0), 1 => Just(1), 2 => Just(2), 1 => Just(0o1002)];
    prop_oneof![
        12 => (n(), n()).prop_map(|(a, b)| Step::Lookup(a, b)),
        3 => (n(), n()).prop_map(|(a, b)| Step::Create(a, b)),
        2 => (n(), n(), yes()).prop_map(|(a, b, c)| Step::Make(a, b, c)),
        1 => (n(), n()).prop_map(|(a, b)| Step::Unlink(a, b)),
        1 => (n(), n(), n(), n()).prop_map(|(a, b, c, d)| Step::Rename(a, b, c, d)),
        8 => (n(), flags).prop_map(|(a, b)| Step::Open(a, b)),
        3 => n().prop_map(Step::Opendir),
        4 => n().prop_map(Step::Getattr),
        24 => (n(), n()).prop_map(|(a, b)| Step::Use(a, b)),
        4 => n().prop_map(Step::Close),
        4 => n().prop_map(Step::Forget),
        20 => n().prop_map(Step::Work),
        20 => n().prop_map(Step::Deliver),
        8 => Just(Step::Run),
        3 => (n(), yes()).prop_map(|(a, b)| Step::Kill(a, b)),
        6 => Just(Step::Start),
        1 => Just(Step::Restart),
        2 => (n(), yes()).prop_map(|(a, b)| Step::Signal(a, b)),
        3 => (0..3000u64).prop_map(Step::Later),
        1 => Just(Step::Block),
        3 => Just(Step::Unblock),
    ]
}

fn take(holder: &mut Holder, step: Step) {
    match step {
        Step::Lookup(dir, name) => holder.name(Opcode::Lookup, dir, name),
        Step::Create(dir, name) => holder.name(Opcode::Create, dir, name),
        Step::Make(dir, name, true) => holder.name(Opcode::Mkdir, dir, name),
        Step::Make(dir, name, false) => holder.name(Opcode::Mknod, dir, name),
        Step::Unlink(dir, name) => holder.name(Opcode::Unlink, dir, name),
        Step::Rename(dir, name, to, new) => holder.rename(dir, name, to, new),
        Step::Open(node, flags) => holder.open(node, flags),
        Step::Opendir(node) => holder.opendir(node),
        Step::Getattr(node) => holder.getattr(node),
        Step::Use(open, how) => holder.use_open(open, how),
        Step::Close(open) => holder.close(open),
        Step::Forget(node) => holder.forget(node),
        Step::Work(n) => {
            let inbox = holder
                .world
                .daemon
                .as_ref()
                .map_or(0, |daemon| daemon.inbox.len());
            if inbox > 0 {
                holder.world.work(n % inbox);
            }
        }
        Step::Deliver(n) => {
            let outbox = holder.world.outbox.len();
            if outbox > 0 {
                holder.world.deliver(n % outbox);
            }
        }
        Step::Run => holder.world.run(),
        Step::Kill(drained, again) => {
            for _ in 0..drained.min(holder.world.outbox.len()) {
                holder.world.deliver(0);
            }
            holder.kill();
            if again {
                holder.world.start();
            }
        }
        Step::Start if holder.world.daemon.is_none() => holder.world.start(),
        Step::Start => {}
        Step::Restart => holder.restart(),
        Step::Signal(n, kill) => holder.signal(n, kill),
        Step::Later(ms) => holder.world.later(Duration::from_millis(ms)),
        Step::Block => holder.world.ends.blocked = true,
        Step::Unblock => holder.world.unblock(),
    }
    holder.hear();
}

/// Ends all that the kernel holds.
fn end(holder: &mut Holder) {
    holder.world.unblock();
    if holder.world.daemon.is_none() {
        holder.world.start();
    }
    holder.quiet();
    assert!(holder.asked.is_empty(), "no answer: {:?}", holder.asked);
    holder.check_saved();
    while let Some(open) = holder.opens.first().cloned() {
        if open.writer {
            holder.on_open(Opcode::Flush, &open);
            holder.quiet();
        }
        holder.close(0);
        holder.quiet();
    }
    while !holder.nodes.is_empty() {
        for n in 0..holder.nodes.len() {
            holder.forget(n);
        }
        holder.quiet();
    }
    let status = holder.world.relay.status();
    assert_eq!((status.nodes, status.handles), (1, 0), "nothing is left");
    assert_eq!((status.requests, status.in_daemon), (0, 0));
    assert!(
        holder
            .world
            .daemon
            .as_ref()
            .is_some_and(|daemon| daemon.is_empty())
    );
    let mut records = 0;
    holder.world.relay.snapshot(&mut |_| records += 1);
    assert_eq!(records, 1, "INIT's");
}

fn play(steps: &[Step]) {
    let mut holder = Holder::new();
    for step in steps {
        take(&mut holder, *step);
    }
    end(&mut holder);
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::with_cases(
            std::env::var("RELAY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100),
        )
    })]

    #[test]
    fn the_rule_holds_whatever_happens(steps in prop::collection::vec(step(), 1..250)) {
        play(&steps);
    }
}

#[test]
fn the_model_sees_traffic() {
    let mut holder = Holder::new();
    for n in 0..4 {
        take(&mut holder, Step::Lookup(0, n));
        take(&mut holder, Step::Run);
    }
    assert!(holder.nodes.len() >= 2);
    assert_eq!(
        holder
            .asked
            .values()
            .map(|asked: &Asked| asked.node)
            .find(|node| *node == ROOT),
        None
    );
}
