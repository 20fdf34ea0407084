//! Whether every byte that was acknowledged is there: in the store, and through every mount.

use crate::deaths;
use crate::ledger::Content;
use crate::pods::Pod;
use crate::volumes::VOLUMES;
use crate::world::{BUCKET, World};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How much was looked at.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) objects: usize,
    pub(crate) bytes: usize,
}

/// Looks at every object of the store.
///
/// # Panics
/// If one of them is not as it must be.
pub(crate) fn in_store(world: &World) -> Checked {
    let ledger = world.ledger.lock().expect("the ledger");
    let mut checked = Checked::default();
    let mut keys: BTreeSet<String> = world.store.keys(BUCKET).into_iter().collect();
    keys.extend(ledger.keys().map(str::to_owned));
    for key in keys {
        // A directory of a volume, made before the run, and what deaths.rs looks at itself.
        if VOLUMES.iter().any(|volume| volume.prefix == key) || deaths::is_own(&key) {
            continue;
        }
        let found = world.store.object(BUCKET, &key);
        let outcome = ledger.check(&key, found.as_deref());
        outcome.unwrap_or_else(|wrong| panic!("in the store: {wrong}"));
        checked.objects += 1;
        checked.bytes += found.map_or(0, |found| found.len());
    }
    checked
}

/// Looks at every file that is known through the mount of every Pod that runs, and returns how many
/// mounts that were.
///
/// # Panics
/// If one of them is not as it must be.
pub(crate) fn through_mounts(world: &World) -> usize {
    let known: Vec<(String, Option<Content>)> = {
        let ledger = world.ledger.lock().expect("the ledger");
        let known = ledger.known();
        known
            .map(|(key, content)| (key.to_owned(), content))
            .collect()
    };
    // A few at a time: there are few cores.
    world
        .pods
        .iter()
        .map(|pod| through_mount(pod, &known))
        .sum()
}

fn through_mount(pod: &Pod, known: &[(String, Option<Content>)]) -> usize {
    let running = pod.running.read().expect("the Pod");
    let Some(running) = running.as_ref() else {
        return 0;
    };
    let prefix = VOLUMES[pod.volume()].prefix;
    let inside = running
        .container
        .as_ref()
        .map(|container| container.volume());
    let places: Vec<PathBuf> = std::iter::once(running.target.clone())
        .chain(inside)
        .collect();
    for (key, content) in known {
        let Some(name) = key.strip_prefix(prefix).filter(|name| !name.contains('/')) else {
            continue;
        };
        // Its own files at all places, those of others at one.
        let is_own = name.starts_with(&format!("file{}-", pod.number));
        let count = if is_own { places.len() } else { 1 };
        for place in places.iter().rev().take(count) {
            at(place, name, *content).unwrap_or_else(|wrong| panic!("{}: {wrong}", pod.number));
        }
    }
    places.len()
}

fn at(place: &Path, name: &str, content: Option<Content>) -> Result<(), String> {
    let path = place.join(name);
    match (fs::read(&path), content) {
        (Ok(found), Some(content)) if found == content.make() => Ok(()),
        (Err(e), None) if e.kind() == ErrorKind::NotFound => Ok(()),
        (Ok(found), content) => Err(format!(
            "{} has {} bytes, expected {content:?}",
            path.display(),
            found.len()
        )),
        (Err(e), content) => Err(format!("{}: {e}, expected {content:?}", path.display())),
    }
}
