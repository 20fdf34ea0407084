//! [`Mode::Off`](super::spec::Mode): the node's file system as it is, but for what gives ossfs its
//! FUSE descriptor: libfuse finds this program as `fusermount`, and mount(2) fails with EPERM.

use super::spec::Spec;
use super::stub;
use super::tree::{Found, Tree, UNUSED, bind};
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use std::path::Path;

/// Enters a mount namespace like the caller's.
pub(super) fn enter(spec: &Spec) -> Result<Found> {
    let own = stub::program()?;
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(UNUSED, Path::new("/"), UNUSED, private, UNUSED).context("make the mounts private")?;
    // The mount that waits for this daemon: its own stat(2) of it would wait for itself.
    match umount2(&spec.mount_point, MntFlags::MNT_DETACH) {
        // It is not mounted here, or has been taken away meanwhile.
        Ok(()) | Err(Errno::EINVAL) => {}
        Err(e) => {
            return Err(e).with_context(|| format!("detach {}", spec.mount_point.display()));
        }
    }
    let tree = Tree::mount(&spec.root, "size=16m,mode=755")?;
    for place in stub::places() {
        bind(&own, &place, MsFlags::empty())
            .with_context(|| format!("bind {} over {}", own.display(), place.display()))?;
    }
    for name in stub::NAMES {
        tree.bind(&own, &Path::new("/").join(name), MsFlags::empty())?;
    }
    remove_capability_from_bounding_set(CapabilitySet::SYS_ADMIN).context("drop CAP_SYS_ADMIN")?;
    Ok(Found {
        program: spec.program.clone(),
        stub: spec.root.clone(),
    })
}
