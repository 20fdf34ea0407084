//! What kubelet does around each call of the driver: TARGET is made before a mount, and removed with
//! a plain rmdir after a failed one and after an unmount.

use crate::container::Container;
use crate::pods::{Known, Pod, Running};
use crate::volumes::options;
use crate::world::World;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::{Mount, OWN_TABLE, Status};

fn is_mount_point(target: &Path) -> bool {
    Mount::table(OWN_TABLE)
        .iter()
        .any(|mount| mount.is_at(target))
}

/// What a call of mount comes to.
#[derive(PartialEq, Eq)]
pub(crate) enum Outcome {
    Mounted,
    Nothing,
    /// The call was killed and has left a mount, which kubelet could not remove.
    Uncertain,
}

/// The call mount, if nothing is mounted there yet.
pub(crate) fn mount(
    world: &World,
    pod: &Pod,
    known: &mut Known,
    kill: Option<Duration>,
) -> Outcome {
    let target = known.target.clone();
    let text = target.to_str().expect("UTF-8").to_owned();
    let uid = world.paths.uid(&target);
    if is_mount_point(&target) {
        // kubelet looks before it calls, and takes a dead mount for one, too.
        world.counts.kept.add();
        world.history.note(format_args!("{uid}: found mounted"));
    } else {
        fs::create_dir_all(&target).expect("make TARGET");
        let pair = world.keys.current(pod.volume());
        known.pairs.insert(pair);
        let options = options(pod.volume(), world.keys.pair(pair), &world.usual);
        match world.call(&["mount", &text, &options.to_string()], kill) {
            Some(answer) if answer.status == Status::Success => {
                world.counts.mounts.add();
                world.history.note(format_args!("{uid}: mounted"));
                known.pairs = BTreeSet::from([pair]);
            }
            Some(answer) => {
                world.counts.refused.add();
                world
                    .history
                    .note(format_args!("{uid}: mount: {}", answer.raw.trim()));
                assert_eq!(answer.status, Status::Failure, "{}", answer.raw);
                let removed = fs::remove_dir(&target);
                removed.unwrap_or_else(|e| panic!("{uid}: TARGET after a failed mount: {e}"));
                return Outcome::Nothing;
            }
            None => {
                let removed = fs::remove_dir(&target);
                world
                    .history
                    .note(format_args!("{uid}: mount killed, rmdir {removed:?}"));
                return match removed {
                    Ok(()) => Outcome::Nothing,
                    Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => Outcome::Uncertain,
                    Err(e) => panic!("{uid}: TARGET after a killed mount: {e}"),
                };
            }
        }
    }
    known.is_mounted = true;
    let mut running = pod.running.write().expect("the Pod");
    if running
        .as_ref()
        .is_none_or(|running| running.target != target)
    {
        *running = Some(Running {
            target,
            pairs: known.pairs.clone(),
            container: None,
        });
    }
    Outcome::Mounted
}

/// Starts the Pod's container, which fails while the volume's daemon is dead.
pub(crate) fn start(world: &World, pod: &Pod, known: &Known) -> bool {
    let uid = world.paths.uid(&known.target);
    let root = world.paths.containers.join(&uid);
    match Container::start(&known.target, &root, pod.number.is_multiple_of(4)) {
        Ok(container) => {
            let mut running = pod.running.write().expect("the Pod");
            running.as_mut().expect("a Pod with a volume").container = Some(container);
            true
        }
        Err(e) => {
            world
                .history
                .note(format_args!("{uid}: no container: {e:#}"));
            false
        }
    }
}

/// The call unmount, behind the end of everything that uses the volume. Says whether it succeeded.
pub(crate) fn unmount(world: &World, pod: &Pod, target: &Path, kill: Option<Duration>) -> bool {
    let uid = world.paths.uid(target);
    {
        let mut running = pod.running.write().expect("the Pod");
        if running
            .as_ref()
            .is_some_and(|running| running.target == target)
        {
            *running = None;
            // Made by the run, not by kubelet.
            let root = world.paths.containers.join(&uid);
            let _ = fs::remove_dir(root.join("data")).and_then(|()| fs::remove_dir(root));
        }
    }
    let answer = world.call(&["unmount", target.to_str().expect("UTF-8")], kill);
    match answer {
        Some(answer) if answer.status == Status::Success => {
            world.counts.unmounts.add();
            world.history.note(format_args!("{uid}: unmounted"));
            match fs::remove_dir(target) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    panic!("{uid}: TARGET after an unmount: {e}")
                }
                _ => true,
            }
        }
        Some(answer) => {
            assert_eq!(answer.status, Status::Failure, "{}", answer.raw);
            world
                .history
                .note(format_args!("{uid}: unmount: {}", answer.raw.trim()));
            false
        }
        None => {
            world.history.note(format_args!("{uid}: unmount killed"));
            false
        }
    }
}
