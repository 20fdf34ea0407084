//! Every way to die, under every use, from every place: a few of them after each round, in an order
//! that follows from the seed and comes to all.
//!
//! The rule: while only ossfs dies, nobody who reads notices; who changes something gets EIO or has it
//! done; and what was done without an error is in the store.

use crate::container::Container;
use crate::daemons;
use crate::plan::{Fault, Victim};
use crate::volumes::options;
use crate::world::{BUCKET, World};
use fastrand::Rng;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::yield_now;
use std::time::Duration;
use support::Status;
use support::namespace::bind;

/// The volume of these cases: one that is not shared.
const VOLUME: usize = 3;
const PREFIX: &str = "three/";
const CONTENT: &[u8] = &[7; 70_000];
/// How long the store is silent.
const SILENCE: Duration = Duration::from_secs(2);
/// The loader, which maps the program that it is given.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Of(Victim, Signal),
    Silence,
}

const DEATHS: [Death; 7] = [
    Death::Of(Victim::Ossfs, Signal::SIGKILL),
    Death::Of(Victim::Ossfs, Signal::SIGSEGV),
    Death::Of(Victim::Ossfs, Signal::SIGTERM),
    Death::Of(Victim::Ossfs, Signal::SIGSTOP),
    Death::Of(Victim::Child, Signal::SIGKILL),
    Death::Of(Victim::Parent, Signal::SIGKILL),
    Death::Silence,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Read,
    Write,
    Rename,
    List,
    SmallFiles,
    Map,
}

const USES: [Use; 6] = [
    Use::Read,
    Use::Write,
    Use::Rename,
    Use::List,
    Use::SmallFiles,
    Use::Map,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where kubelet has it: a shared mount.
    Shared,
    Private,
    Slave,
    /// One file of it, bound elsewhere.
    SubPath,
}

const PLACES: [Place; 4] = [Place::Shared, Place::Private, Place::Slave, Place::SubPath];

/// A case: one of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case(Death, Use, Place);

/// All cases, in the order of `seed`.
pub(crate) fn cases(seed: u64) -> Vec<Case> {
    let mut all = Vec::new();
    for death in DEATHS {
        for usage in USES {
            for place in PLACES {
                // There are no names in a file.
                if place != Place::SubPath || matches!(usage, Use::Read | Use::Map) {
                    all.push(Case(death, usage, place));
                }
            }
        }
    }
    Rng::with_seed(seed).shuffle(&mut all);
    all
}

/// Goes through one case, on a volume of its own.
///
/// # Panics
/// If it breaks the rule.
pub(crate) fn perform(world: &World, case: Case, number: usize) {
    world.history.note(format_args!("{case:?}"));
    let Case(death, usage, place) = case;
    let uid = format!("death-{number}");
    let key = |name: &str| format!("{PREFIX}{uid}/{name}");
    world.store.put(BUCKET, &key(""), "");
    world.store.put(BUCKET, &key("read"), CONTENT);
    let program = fs::read("/bin/true").expect("read a program");
    world.store.put(BUCKET, &key("program"), program);
    let target = world.paths.target(&uid);
    fs::create_dir_all(&target).expect("make TARGET");
    let pair = world.keys.pair(world.keys.current(VOLUME));
    let text = target.to_str().expect("UTF-8").to_owned();
    let json = options(VOLUME, pair, &world.usual).to_string();
    let answer = world.call(&["mount", &text, &json], None);
    let answer = answer.expect("an answer");
    assert_eq!(answer.status, Status::Success, "{case:?}: {}", answer.raw);

    let root = world.paths.containers.join(&uid);
    let container = match place {
        Place::Private | Place::Slave => Some(
            Container::start(&target, &root, place == Place::Slave).expect("start a container"),
        ),
        Place::Shared | Place::SubPath => None,
    };
    let base = container
        .as_ref()
        .map_or_else(|| target.clone(), Container::volume);
    let directory = base.join(&uid);
    let bound = (place == Place::SubPath).then(|| sub_path(&root, &directory, usage));
    let mut done = BTreeMap::new();
    let (over, times) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            let mut done = BTreeMap::new();
            while !over.load(Ordering::Relaxed) {
                let count = times.load(Ordering::Relaxed);
                let result = once(usage, &directory, bound.as_deref(), count, &mut done);
                judge(case, result);
                times.fetch_add(1, Ordering::Relaxed);
            }
            done
        });
        let until = |count| {
            while times.load(Ordering::Relaxed) < count && !user.is_finished() {
                yield_now();
            }
        };
        until(2);
        match death {
            Death::Silence => world.fault(Fault::Hang, SILENCE),
            Death::Of(victim, signal) => {
                let pid = daemons::of_target(world, &target, victim).expect("a process");
                daemons::end(pid, signal);
            }
        }
        if is_total(death) {
            while world.heal(None).is_err() {}
        } else {
            until(times.load(Ordering::Relaxed) + 3);
        }
        over.store(true, Ordering::Relaxed);
        done = user.join().expect("the user");
    });
    // Through the target everything is there again, whatever died.
    let found = fs::read(target.join(&uid).join("read"));
    assert_eq!(found.expect("read"), CONTENT, "{case:?}");
    if let Some(bound) = bound {
        umount2(&bound, MntFlags::MNT_DETACH).expect("unmount the sub-path");
    }
    drop(container);
    let answer = world.call(&["unmount", &text], None).expect("an answer");
    assert_eq!(answer.status, Status::Success, "{case:?}: {}", answer.raw);
    fs::remove_dir(&target).expect("remove TARGET");
    // Made by the run, not by kubelet.
    let _ = fs::remove_dir_all(&root);
    for (name, content) in done {
        let found = world.store.object(BUCKET, &key(&name));
        assert_eq!(found.as_deref(), Some(&*content), "{case:?}: {name}");
    }
}

/// Whether an object is of these cases.
pub(crate) fn is_own(key: &str) -> bool {
    key.starts_with(&format!("{PREFIX}death-"))
}

/// Binds one file of `directory` as kubelet does for a subPath, and returns where.
fn sub_path(root: &Path, directory: &Path, usage: Use) -> PathBuf {
    let name = if usage == Use::Map { "program" } else { "read" };
    fs::create_dir_all(root).expect("make a directory");
    let place = root.join(name);
    File::create(&place).expect("make a file");
    bind(&directory.join(name), &place).expect("bind a file");
    place
}

/// Whether the mount does not survive it.
fn is_total(death: Death) -> bool {
    matches!(death, Death::Of(Victim::Parent, _))
}

/// Checks what came of one use.
fn judge(case: Case, result: io::Result<()>) {
    let Case(death, usage, _) = case;
    let Err(e) = result else {
        return;
    };
    let changes = matches!(usage, Use::Write | Use::Rename | Use::SmallFiles);
    let allowed: &[Errno] = match death {
        // The connection is gone, or a call was lost with it.
        Death::Of(Victim::Parent | Victim::Child, _) => {
            &[Errno::EIO, Errno::ENOTCONN, Errno::ECONNABORTED]
        }
        _ if changes => &[Errno::EIO],
        _ => &[],
    };
    // The loader tells no number.
    let is_untold = e.raw_os_error().is_none() && !allowed.is_empty();
    let is_allowed = allowed
        .iter()
        .any(|errno| e.raw_os_error() == Some(*errno as i32));
    assert!(is_untold || is_allowed, "{case:?}: {e}");
}

/// Uses the volume once. What is in the store from then on is noted in `done`.
fn once(
    usage: Use,
    directory: &Path,
    bound: Option<&Path>,
    count: usize,
    done: &mut BTreeMap<String, Vec<u8>>,
) -> io::Result<()> {
    let read = |name: &str| bound.map_or_else(|| directory.join(name), Path::to_owned);
    let content = count.to_string().repeat(3000).into_bytes();
    match usage {
        Use::Read => {
            if fs::read(read("read"))? != CONTENT {
                return Err(io::Error::other("wrong bytes"));
            }
        }
        Use::List => {
            let names = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
            if names.len() != 2 {
                return Err(io::Error::other(format!("{names:?}")));
            }
        }
        Use::Map => {
            let status = Command::new(LOADER).arg(read("program")).output()?;
            if !status.status.success() {
                return Err(io::Error::other(format!("{status:?}")));
            }
        }
        Use::Write | Use::SmallFiles => {
            // One file again and again, or another each time.
            let name = match usage {
                Use::Write => "written".to_owned(),
                _ => format!("small-{count}"),
            };
            // Until it is done, it may be either.
            done.remove(&name);
            write(&directory.join(&name), &content)?;
            done.insert(name, content);
        }
        Use::Rename => {
            let (old, new) = (format!("old-{count}"), format!("new-{count}"));
            write(&directory.join(&old), &content)?;
            fs::rename(directory.join(&old), directory.join(&new))?;
            done.insert(new, content);
        }
    }
    Ok(())
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    nix::unistd::close(std::os::fd::OwnedFd::from(file))?;
    written
}

#[cfg(test)]
mod tests {
    use super::cases;

    #[test]
    fn the_seed_decides_the_order_and_nothing_else() {
        let sorted = |seed| {
            let mut all: Vec<_> = cases(seed).iter().map(|case| format!("{case:?}")).collect();
            all.sort();
            all.dedup();
            all
        };
        assert_eq!(sorted(1), sorted(2));
        assert_eq!(sorted(1).len(), 7 * (6 * 3 + 2));
    }
}
