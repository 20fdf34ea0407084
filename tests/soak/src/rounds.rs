//! The run: rounds of actions, each with a check behind it, and at last the end of everything.

use crate::actions::perform;
use crate::args::Args;
use crate::bytes;
use crate::check::{Expected, Target, check};
use crate::deaths;
use crate::plan::Plan;
use crate::pods::reconcile;
use crate::report::{self, History, Watchdog};
use crate::snapshot::Snapshot;
use crate::volumes::VOLUMES;
use crate::world::World;
use serde_json::json;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::{Sandbox, Settings, with_settings};

/// How long the actions of a round may go on behind the last one.
const ACTIONS: Duration = Duration::from_secs(180);
/// How long kubelet and `oss heal` may take to have everything as it is wanted, once the store is
/// well: several times the deadlines of calls, and the longest that `oss heal` holds a start back.
const SETTLING: Duration = Duration::from_secs(180);
/// How long what has been told to end may take to be gone.
const ENDING: Duration = Duration::from_secs(30);
/// How many cases of `deaths` there are after a round.
const DEATHS: usize = 12;
/// How often to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Runs to the end.
///
/// # Panics
/// At the first thing that is wrong.
pub(crate) fn run(args: &Args) {
    let seed = args.seed.expect("a seed");
    let settings = Settings::config(json!({
        "mountTimeoutSeconds": 8, "unmountTimeoutSeconds": 8, "hungAfterSeconds": 1,
    }));
    with_settings(&args.driver.to_string_lossy(), &settings, |node| {
        let again = args.again(seed);
        report::announce(seed, &again);
        let file = args.history.as_ref().map(std::fs::File::create);
        let history = History::new(file.map(|file| file.expect("make the history's file")));
        report::end_at_a_panic(history.clone(), node.log_file(), again);
        let world = World::new(node, builds(node, args), history);
        std::thread::scope(|scope| {
            for pod in &world.pods {
                scope.spawn(|| reconcile(&world, pod));
            }
            let rounds = all_rounds(node, &world, args, seed);
            for pod in &world.pods {
                pod.end();
            }
            // What the sandbox checks itself comes behind this.
            report::done(rounds, seed);
        });
    });
}

/// The builds of the driver: at least two files, for an upgrade to change something.
fn builds(node: &Sandbox, args: &Args) -> Vec<PathBuf> {
    let driver = std::fs::read(&args.driver).expect("read the driver");
    // What stands behind the end of an ELF file has no meaning.
    let mut second = driver.clone();
    second.extend_from_slice(b"another file");
    let mut contents = vec![driver, second];
    contents.extend(
        args.other
            .iter()
            .map(|other| std::fs::read(other).expect("read the driver")),
    );
    let write = |(number, content): (usize, Vec<u8>)| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = node.path(&format!("build-{number}"));
        std::fs::write(&path, content).expect("write a build");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("make it executable");
        path
    };
    contents.into_iter().enumerate().map(write).collect()
}

fn all_rounds(node: &Sandbox, world: &World, args: &Args, seed: u64) -> u64 {
    let builds = 2 + usize::from(args.other.is_some());
    let mut plan = Plan::new(seed, VOLUMES.len(), builds);
    let end = Instant::now() + Duration::from_secs_f64(args.minutes * 60.0);
    let cases = deaths::cases(seed);
    let all = cases.len();
    let (mut deaths, mut died) = (cases.into_iter().cycle(), 0);
    let mut number = 0;
    while number == 0 || Instant::now() < end {
        number += 1;
        let since = Instant::now();
        world.history.begin_round(number);
        let steps = plan.round(args.actions);
        {
            let _limit = Watchdog::start("a round of actions", ACTIONS);
            perform(world, steps, &mut |secret| node.watch_secret(&secret));
        }
        finish_round(world, number, since);
        let _limit = Watchdog::start("the deaths after a round", ACTIONS);
        for case in deaths.by_ref().take(DEATHS) {
            deaths::perform(world, case, died);
            died += 1;
        }
    }
    report::deaths(died, all);
    for pod in &world.pods {
        pod.want(false, None);
    }
    finish_round(world, number + 1, Instant::now());
    number
}

/// Has everything settle, checks it, and prints the round's line.
fn finish_round(world: &World, number: u64, since: Instant) {
    let acted = since.elapsed();
    let checked = settle_and_check(world);
    let settled = since.elapsed() - acted;
    report::round(number, [acted, settled], &world.counts.take(), &checked);
}

/// Waits until everything is as it is wanted, and checks it. Returns what was looked at.
fn settle_and_check(world: &World) -> String {
    world.history.note("settling");
    // What another build has left is this one's to clear up.
    world.upgrade(0);
    let limit = Watchdog::start("settling", SETTLING);
    loop {
        let is_settled = world.pods.iter().all(|pod| pod.is_settled());
        // Called in any case: a Pod may be waiting for a hung daemon to be aborted.
        let is_healed = world.heal(None).is_ok();
        if is_settled && is_healed {
            break;
        }
        sleep(LOOK_AGAIN);
    }
    // Those whose volumes have ended.
    world.stopped.resume_all();
    world.forget_calls();
    drop(limit);

    world.history.note("checking");
    let mut since = Instant::now();
    loop {
        let expected = expected(world);
        let containers: Vec<u32> = expected.containers.iter().copied().collect();
        let found = Snapshot::read(&world.paths, &containers);
        let wrong = check(&found, &expected);
        if !wrong.is_empty() && world.pods.iter().any(|pod| pod.restart_if_dead(world)) {
            since = Instant::now();
        }
        if wrong.is_empty() {
            break;
        }
        // The kernel and daemons that write take a moment to end what was ended.
        assert!(since.elapsed() < ENDING, "{}", wrong.join("\n"));
        sleep(LOOK_AGAIN);
    }
    let _limit = Watchdog::start("reading back", SETTLING);
    let stored = bytes::in_store(world);
    let mounts = bytes::through_mounts(world);
    format!(
        "{} bytes in {} objects, and through {mounts} mounts",
        stored.bytes, stored.objects
    )
}

fn expected(world: &World) -> Expected {
    let mut expected = Expected {
        state: world.paths.state.display().to_string(),
        ..Expected::default()
    };
    for pod in &world.pods {
        let running = pod.running.read().expect("the Pod");
        let Some(running) = running.as_ref() else {
            continue;
        };
        let container = running.container.as_ref().map(|container| container.pid());
        expected.containers.extend(container);
        let secrets = running.pairs.iter().map(|pair| world.keys.pair(*pair).1);
        expected.targets.push(Target {
            path: running.target.display().to_string(),
            volume: pod.volume(),
            secrets: secrets.collect(),
            container,
        });
    }
    expected
}
