//! What may be on the node when all calls have ended, and nothing else: pure, so that its own tests
//! can show it every kind of leak.

mod files;
mod processes;

use crate::snapshot::Snapshot;
use crate::volumes::VOLUMES;
use std::collections::{BTreeMap, BTreeSet};
use support::Mount;

/// The most layers at one place: the mount, a dead one below it, and between them one for each
/// container that was started between two heals since.
const LAYERS: usize = 8;

/// What the run knows to be on the node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// The state directory, with which staging directories begin.
    pub(crate) state: String,
    pub(crate) targets: Vec<Target>,
    /// The processes of containers.
    pub(crate) containers: BTreeSet<u32>,
}

/// One target where a volume is mounted.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) path: String,
    /// Which of the volumes.
    pub(crate) volume: usize,
    /// The secrets of which it has one.
    pub(crate) secrets: BTreeSet<String>,
    /// The process of its container.
    pub(crate) container: Option<u32>,
}

/// A volume as the driver has written it down.
struct Noted<'s> {
    id: &'s str,
    targets: BTreeSet<String>,
    secret: Option<String>,
    daemon: Option<u32>,
}

/// All that is wrong, a line each.
pub(crate) fn check(found: &Snapshot, expected: &Expected) -> Vec<String> {
    let noted = noted(found);
    let mut wrong = volumes(&noted, expected);
    wrong.extend(mounts(found, &noted, expected));
    wrong.extend(processes::check(found, &noted, expected));
    wrong.extend(files::check(found, &noted, expected));
    wrong.extend(files::secrets(found));
    wrong
}

fn noted(found: &Snapshot) -> Vec<Noted<'_>> {
    let text = |name: String| {
        let file = found.state.get(&name)?;
        Some(String::from_utf8_lossy(&file.content).trim().to_owned())
    };
    let ids = found.state.keys().filter_map(|name| {
        let id = name.strip_prefix("volumes/")?.strip_suffix('/')?;
        (!id.contains('/')).then_some(id)
    });
    ids.map(|id| {
        let targets = found.state.keys();
        let targets = targets.filter(|name| name.starts_with(&format!("volumes/{id}/targets/")));
        let daemon = text(format!("volumes/{id}/daemon"));
        Noted {
            id,
            targets: targets
                .filter(|name| !name.ends_with('/'))
                .filter_map(|name| text(name.clone()))
                .collect(),
            secret: text(format!("volumes/{id}/passwd"))
                .and_then(|line| Some(line.rsplit_once(':')?.1.to_owned())),
            daemon: daemon.and_then(|line| line.split(' ').next()?.parse().ok()),
        }
    })
    .collect()
}

/// Which targets are noted for which volumes: each once, with others only where that is meant.
fn volumes(noted: &[Noted], expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let known: BTreeMap<&str, &Target> = expected.targets.iter().map(|t| (&*t.path, t)).collect();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    let mut shared: BTreeMap<(usize, &str), &str> = BTreeMap::new();
    for volume in noted {
        let id = volume.id;
        let secret = volume.secret.as_deref().unwrap_or_default();
        if volume.targets.is_empty() {
            wrong.push(format!("volume {id} has no target"));
        }
        let mut kinds = BTreeSet::new();
        for path in &volume.targets {
            let Some(target) = known.get(path.as_str()) else {
                wrong.push(format!("volume {id} has the target {path}, which is gone"));
                continue;
            };
            if let Some(other) = seen.insert(path, id) {
                wrong.push(format!("{path} is a target of {other} and {id}"));
            }
            if !target.secrets.contains(secret) {
                wrong.push(format!("{path}: volume {id} has another key pair"));
            }
            kinds.insert(target.volume);
        }
        if kinds.len() > 1 {
            wrong.push(format!("volume {id} is several: {kinds:?}"));
        }
        if let Some(kind) = kinds.first() {
            if !VOLUMES[*kind].shared {
                if volume.targets.len() > 1 {
                    wrong.push(format!("volume {id} is shared: {:?}", volume.targets));
                }
            } else if let Some(other) = shared.insert((*kind, secret), id) {
                wrong.push(format!("volumes {other} and {id} are one"));
            }
        }
    }
    for path in known.keys().filter(|path| !seen.contains_key(*path)) {
        wrong.push(format!("{path} is a target of no volume"));
    }
    wrong
}

/// Which mounts there are, and what shows where.
fn mounts(found: &Snapshot, noted: &[Noted], expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut points: BTreeMap<&str, Vec<&Mount>> = BTreeMap::new();
    for mount in &found.mounts {
        points.entry(&mount.point).or_default().push(mount);
    }
    for volume in noted {
        let staging = format!("{}/volumes/{}/staging", expected.state, volume.id);
        let device = match points.remove(staging.as_str()).as_deref() {
            Some([mount]) if mount.kind.starts_with("fuse") => Some(mount.device.clone()),
            Some(layers) => {
                wrong.push(format!("{staging} carries {layers:?}"));
                None
            }
            None => {
                wrong.push(format!("nothing is mounted at {staging}"));
                None
            }
        };
        for target in expected
            .targets
            .iter()
            .filter(|t| volume.targets.contains(&t.path))
        {
            let layers = points.remove(target.path.as_str()).unwrap_or_default();
            wrong.extend(place(
                &target.path,
                &layers,
                device.as_deref(),
                target.volume,
            ));
            let inside = target.container.and_then(|pid| found.containers.get(&pid));
            if let Some(table) = inside {
                let layers: Vec<&Mount> = table.iter().filter(|m| m.point == "/data").collect();
                let name = format!("{} in its container", target.path);
                wrong.extend(place(&name, &layers, device.as_deref(), target.volume));
            }
        }
    }
    for (point, layers) in points {
        wrong.push(format!("a mount is left at {point}: {layers:?}"));
    }
    wrong
}

/// What is wrong with the layers at one place where `device` should be seen.
fn place(name: &str, layers: &[&Mount], device: Option<&str>, volume: usize) -> Vec<String> {
    let Some(top) = layers.last() else {
        return vec![format!("nothing is mounted at {name}")];
    };
    let mut wrong = Vec::new();
    if Some(top.device.as_str()) != device {
        wrong.push(format!("{name} shows {layers:?} instead of {device:?}"));
    }
    let devices: BTreeSet<&str> = layers.iter().map(|m| m.device.as_str()).collect();
    if layers.len() > LAYERS || devices.len() < layers.len() {
        wrong.push(format!("layers pile up at {name}: {layers:?}"));
    }
    let has = |option: &str| top.options.split(',').any(|word| word == option);
    if !has("nosuid") || !has("nodev") || has("ro") != VOLUMES[volume].read_only {
        wrong.push(format!("{name} is mounted with {:?}", top.options));
    }
    wrong
}

#[cfg(test)]
mod tests;
