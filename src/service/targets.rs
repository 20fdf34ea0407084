//! The targets of a volume whose mount was lost: the process of the volume was killed together with
//! what kept its FUSE connection.

use crate::mounts::bind::bind;
use crate::mounts::directory::Directory;
use crate::mounts::table::MountTable;
use crate::service::kubelet_root::real_path;
use crate::state::volume::Volume;
use anyhow::{Context as _, Result};
use std::path::Path;

/// Binds the live mount of `volume` over the dead ones at its targets, on every kernel: containers that
/// start from now on get it, and those with the mount propagation `HostToContainer` see it at once.
/// Running containers with another one keep the dead mount. Returns the UIDs of the Pods whose targets
/// were bound anew.
pub(crate) fn bind_lost(volume: &Volume) -> Result<Vec<String>> {
    let table = MountTable::read()?;
    let Some(live) = table.top(&volume.staging()) else {
        return Ok(Vec::new());
    };
    let mut pods = Vec::new();
    for target in volume.targets()? {
        // One by whose path nothing can be reached has nothing mounted that could be bound anew.
        let Ok(target) = real_path(target) else {
            continue;
        };
        let is_lost = |path: &Path| {
            table
                .top(path)
                .is_some_and(|top| top.is_ossfs() && top.device != live.device)
        };
        if !is_lost(target.path()) {
            continue;
        }
        // Gone meanwhile: its Pod is.
        let Some(directory) = Directory::open(target.path())? else {
            continue;
        };
        let staging =
            Directory::open(&volume.staging())?.context("the staging directory is gone")?;
        bind(&staging, &directory)
            .with_context(|| format!("bind the volume to {}", target.as_str()))?;
        pods.push(target.pod_uid().to_owned());
    }
    pods.sort_unstable();
    pods.dedup();
    Ok(pods)
}

/// The UIDs of the Pods that use `volume`.
pub(crate) fn pods(volume: &Volume) -> Result<Vec<String>> {
    let targets = volume.targets()?;
    let mut pods: Vec<String> = targets
        .iter()
        .map(|target| target.pod_uid().to_owned())
        .collect();
    pods.sort_unstable();
    pods.dedup();
    Ok(pods)
}
