//! Doing what the plan says.

use crate::daemons;
use crate::ledger::Content;
use crate::plan::{Action, Step, Victim};
use crate::pods::{Pod, Running};
use crate::volumes::VOLUMES;
use crate::world::World;
use crate::writer;
use std::path::PathBuf;
use std::sync::RwLockReadGuard;
use std::sync::atomic::Ordering;
use std::thread::{Scope, sleep};
use std::time::Duration;

/// The pause between two calls of `oss heal` while somebody waits for it.
const HEAL_AGAIN: Duration = Duration::from_millis(200);

/// Does the steps of a round, each without waiting for the end of those before, and comes back when
/// all have ended.
pub(crate) fn perform(world: &World, steps: Vec<Step>, rotated: &mut dyn FnMut(String)) {
    std::thread::scope(|scope| {
        for step in steps {
            world.history.note(format_args!("{:?}", step.action));
            if let Some(secret) = begin(world, step.action, scope) {
                rotated(secret);
            }
            sleep(step.pause);
        }
        // Who uses a volume without a process waits until `oss heal`, which a node has run regularly.
        while world.users.load(Ordering::Relaxed) > 0 {
            // What it cannot heal yet the next one can.
            let _ = world.heal(None);
            sleep(HEAL_AGAIN);
        }
    });
}

/// Begins an action; what takes its time gets a thread. Returns a secret that is new.
fn begin<'s>(world: &'s World, action: Action, scope: &'s Scope<'s, '_>) -> Option<String> {
    match action {
        Action::Want { pod, wanted, kill } => world.pods[pod].want(wanted, kill),
        Action::Burst { pods } => {
            for (pod, wanted) in pods {
                world.pods[pod].want(wanted, None);
            }
        }
        Action::Write {
            pod,
            file,
            content,
            sync,
        } => {
            world.users.fetch_add(1, Ordering::Relaxed);
            scope.spawn(move || {
                write(world, &world.pods[pod], file, content, sync);
                world.users.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Action::Remove { pod, file } => {
            world.users.fetch_add(1, Ordering::Relaxed);
            scope.spawn(move || {
                remove(world, &world.pods[pod], file);
                world.users.fetch_sub(1, Ordering::Relaxed);
            });
        }
        Action::Kill {
            pod,
            victim,
            signal,
        } => {
            if let Some(pid) = victim_of(world, &world.pods[pod], victim)
                && daemons::end(pid, signal)
            {
                match victim {
                    Victim::Ossfs => world.counts.ossfs_killed.add(),
                    Victim::Child => world.counts.children_killed.add(),
                    Victim::Parent => world.counts.parents_killed.add(),
                }
            }
        }
        Action::Stop { pod, resume } => {
            if let Some(pid) = victim_of(world, &world.pods[pod], Victim::Ossfs) {
                world.counts.stopped.add();
                world.stopped.stop(pid);
                if let Some(after) = resume {
                    scope.spawn(move || {
                        sleep(after);
                        world.stopped.resume(pid);
                    });
                }
            }
        }
        Action::Heal { kill } => {
            scope.spawn(move || world.heal(kill));
        }
        Action::RestartKubelet => {
            world.counts.restarts.add();
            for pod in &world.pods {
                pod.restart();
            }
            world.kill_calls();
        }
        Action::Upgrade { build } => {
            world.counts.upgrades.add();
            world.upgrade(build);
        }
        Action::Fault { fault, time } => {
            scope.spawn(move || world.fault(fault, time));
        }
        Action::Rotate { volume } => {
            world.counts.rotations.add();
            return Some(world.keys.rotate(volume, world.store));
        }
    }
    None
}

/// A process of the volume of the Pod, if the Pod runs.
fn victim_of(world: &World, pod: &Pod, victim: Victim) -> Option<i32> {
    // Busy: it is just being changed, or what uses it waits for its daemon.
    let running = pod.running.try_read().ok()?;
    daemons::of_target(world, &running.as_ref()?.target, victim)
}

/// The Pod's volume as the Pod sees it, for as long as the guard is held; nothing if it does not run.
fn volume<'p>(pod: &'p Pod) -> Option<(RwLockReadGuard<'p, Option<Running>>, PathBuf)> {
    let guard = pod.running.read().expect("the Pod");
    let running = guard.as_ref()?;
    let path = match (&running.container, pod.has_container()) {
        (Some(container), _) => container.volume(),
        (None, false) => running.target.clone(),
        (None, true) => return None,
    };
    Some((guard, path))
}

fn write(world: &World, pod: &Pod, file: usize, content: Content, sync: bool) {
    let _alone = pod.writing.lock().expect("the Pod");
    let Some((_guard, directory)) = volume(pod) else {
        return;
    };
    let kind = &VOLUMES[pod.volume()];
    if kind.read_only {
        let written = writer::write(&directory.join("read-only"), content, sync);
        assert!(
            written.is_err(),
            "pod{} has written to a read-only volume",
            pod.number
        );
        return;
    }
    let name = format!("{}file{}-{file}", kind.prefix, pod.number);
    let key = {
        let mut ledger = world.ledger.lock().expect("the ledger");
        let key = ledger.key(&name);
        ledger.begin(&name, Some(content));
        key
    };
    let path = directory.join(key.strip_prefix(kind.prefix).expect("a key of the volume"));
    match writer::write(&path, content, sync) {
        Ok(()) if content.bytes == 0 => {}
        Ok(()) => {
            world.counts.written.add();
            world
                .ledger
                .lock()
                .expect("the ledger")
                .acknowledge(&name, &key);
        }
        Err(e) => {
            world.counts.not_written.add();
            world.history.note(format_args!("{key}: {e:#}"));
        }
    }
}

fn remove(world: &World, pod: &Pod, file: usize) {
    let _alone = pod.writing.lock().expect("the Pod");
    let Some((_guard, directory)) = volume(pod) else {
        return;
    };
    let kind = &VOLUMES[pod.volume()];
    let name = format!("{}file{}-{file}", kind.prefix, pod.number);
    let key = {
        let mut ledger = world.ledger.lock().expect("the ledger");
        let key = ledger.key(&name);
        if !ledger
            .known()
            .any(|(known, content)| known == key && content.is_some())
        {
            return;
        }
        ledger.begin(&name, None);
        key
    };
    let path = directory.join(key.strip_prefix(kind.prefix).expect("a key of the volume"));
    match writer::remove(&path) {
        Ok(()) => {
            world.counts.removed.add();
            world
                .ledger
                .lock()
                .expect("the ledger")
                .acknowledge(&name, &key);
        }
        Err(e) => world.history.note(format_args!("{key}: remove: {e:#}")),
    }
}
