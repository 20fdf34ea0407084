//! Pods, and what kubelet does for each of them: it has the volume mounted where it is wanted and
//! unmounted where it is not, tries again and again, and after a restart knows only what it finds
//! in its directory.

use crate::container::Container;
use crate::kubelet::{Outcome, mount, start, unmount};
use crate::volumes::VOLUMES;
use crate::world::World;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, RwLock};
use std::thread::sleep;
use std::time::Duration;
use support::{Mount, OWN_TABLE};

/// How long kubelet waits before it tries again, at first and at most. The real one waits half a
/// second to two minutes.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_millis(800);

/// A Pod with one volume.
pub(crate) struct Pod {
    pub(crate) number: usize,
    order: Mutex<Order>,
    changed: Condvar,
    /// The Pod as it runs; whoever uses its volume holds this for reading.
    pub(crate) running: RwLock<Option<Running>>,
    /// Held by the one that writes a file of this Pod.
    pub(crate) writing: Mutex<()>,
}

/// What is asked of kubelet for the Pod.
#[derive(Default)]
struct Order {
    wanted: Option<String>,
    /// How many UIDs there were.
    incarnations: u64,
    kill: Option<Duration>,
    has_restarted: bool,
    is_settled: bool,
    is_over: bool,
}

/// A Pod that has its volume.
pub(crate) struct Running {
    pub(crate) target: PathBuf,
    /// The key pair with which it was mounted: one of these.
    pub(crate) pairs: BTreeSet<usize>,
    pub(crate) container: Option<Container>,
}

/// What kubelet believes of one target, and the key pairs it has handed over for it.
pub(crate) struct Known {
    pub(crate) target: PathBuf,
    pub(crate) is_mounted: bool,
    pub(crate) pairs: BTreeSet<usize>,
}

impl Pod {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number,
            order: Mutex::default(),
            changed: Condvar::new(),
            running: RwLock::new(None),
            writing: Mutex::default(),
        }
    }

    pub(crate) fn volume(&self) -> usize {
        self.number % VOLUMES.len()
    }

    /// Every third Pod is a static one: its UID, and so its target, is always the same.
    fn uid(&self, incarnation: u64) -> String {
        match self.number % 3 {
            0 => format!("pod{}-static", self.number),
            _ => format!("pod{}-{incarnation}", self.number),
        }
    }

    /// Every second Pod writes from within a container; of these every second one sees what is
    /// mounted later.
    pub(crate) fn has_container(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    fn change(&self, change: impl FnOnce(&mut Order)) {
        let mut order = self.order.lock().expect("the order");
        change(&mut order);
        order.is_settled = false;
        self.changed.notify_all();
    }

    /// Asks for the Pod, or no longer; the first call for it is killed after `kill`.
    pub(crate) fn want(&self, wanted: bool, kill: Option<Duration>) {
        self.change(|order| {
            order.incarnations += u64::from(wanted);
            order.wanted = wanted.then(|| self.uid(order.incarnations));
            order.kill = kill;
        });
    }

    /// kubelet starts again, without anything that it knew of the Pod.
    pub(crate) fn restart(&self) {
        self.change(|order| order.has_restarted = true);
    }

    /// Ends the container if it shows another mount than its target does: one whose processes were all
    /// killed is made anew, and a container with private mounts keeps the dead one. kubelet starts it
    /// again, as `oss heal` asks its users for.
    pub(crate) fn restart_if_dead(&self, world: &World) -> bool {
        let mut running = self.running.write().expect("the Pod");
        let Some(running) = running.as_mut() else {
            return false;
        };
        let Some(container) = &running.container else {
            return false;
        };
        let top = |table: String, point: &Path| {
            let mounts = Mount::table(table);
            let mount = mounts.iter().rfind(|mount| mount.is_at(point));
            mount.map(|mount| mount.device.clone())
        };
        let inside = format!("/proc/{}/mountinfo", container.pid());
        if top(inside, Path::new("/data")) == top(OWN_TABLE.to_owned(), &running.target) {
            return false;
        }
        running.container = None;
        world.counts.containers_restarted.add();
        self.change(|_| {});
        true
    }

    /// Has `reconcile` return.
    pub(crate) fn end(&self) {
        self.change(|order| order.is_over = true);
    }

    /// Whether what is wanted is there, and nothing else.
    pub(crate) fn is_settled(&self) -> bool {
        self.order.lock().expect("the order").is_settled
    }
}

/// kubelet's work for `pod`, until that is ended.
pub(crate) fn reconcile(world: &World, pod: &Pod) {
    let mut known: Vec<Known> = Vec::new();
    let mut wait = FIRST_WAIT;
    loop {
        let (wanted, kill) = {
            let mut order = pod.order.lock().expect("the order");
            while order.is_settled && !order.is_over {
                order = pod.changed.wait(order).expect("the order");
            }
            if order.is_over {
                return;
            }
            if std::mem::take(&mut order.has_restarted) {
                known = found(world, pod, known);
            }
            let target = order.wanted.as_ref().map(|uid| world.paths.target(uid));
            if is_as_wanted(pod, &known, target.as_deref()) {
                order.is_settled = true;
                wait = FIRST_WAIT;
                continue;
            }
            (target, order.kill.take())
        };
        let orphan = known
            .iter()
            .position(|k| wanted.as_ref() != Some(&k.target));
        let went_well = match (orphan, wanted) {
            (Some(at), _) => {
                // Whatever comes of it; kubelet, too, is not certain any more when it fails.
                known[at].is_mounted = false;
                let is_gone = unmount(world, pod, &known[at].target, kill);
                if is_gone {
                    known.remove(at);
                }
                is_gone
            }
            (None, Some(target)) => {
                if known.is_empty() {
                    known.push(Known {
                        target,
                        is_mounted: false,
                        pairs: BTreeSet::new(),
                    });
                }
                let volume = &mut known[0];
                if !volume.is_mounted {
                    let outcome = mount(world, pod, volume, kill);
                    if outcome == Outcome::Nothing {
                        known.clear();
                    }
                    outcome == Outcome::Mounted
                } else {
                    start(world, pod, volume)
                }
            }
            (None, None) => true,
        };
        if went_well {
            wait = FIRST_WAIT;
        } else {
            // As kubelet, which does not ask a driver that fails at once again.
            sleep(wait);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// Whether kubelet has nothing to do.
fn is_as_wanted(pod: &Pod, known: &[Known], wanted: Option<&Path>) -> bool {
    let running = pod.running.read().expect("the Pod");
    match (wanted, known) {
        (None, []) => true,
        (Some(wanted), [known]) => {
            known.is_mounted
                && known.target == wanted
                && running.as_ref().is_some_and(|running| {
                    running.target == wanted && running.container.is_some() == pod.has_container()
                })
        }
        _ => false,
    }
}

/// What a kubelet that has just started finds of the Pod: directories. (Which key pairs were handed
/// over is the run's own knowledge.)
fn found(world: &World, pod: &Pod, before: Vec<Known>) -> Vec<Known> {
    let prefix = format!("pod{}-", pod.number);
    let entries = fs::read_dir(&world.paths.pods).expect("list the Pods");
    let uids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    uids.filter(|uid| uid.starts_with(&prefix))
        .map(|uid| world.paths.target(&uid))
        // Not followed: it may be dead.
        .filter(|target| is_there(target))
        .map(|target| {
            let pairs = before
                .iter()
                .find(|k| k.target == target)
                .map(|k| k.pairs.clone());
            Known {
                target,
                is_mounted: false,
                pairs: pairs.unwrap_or_default(),
            }
        })
        .collect()
}

/// Whether there is a directory at `target`, asked of the one that it is in.
fn is_there(target: &Path) -> bool {
    let entries = target.parent().and_then(|parent| fs::read_dir(parent).ok());
    entries
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.path() == target)
}
