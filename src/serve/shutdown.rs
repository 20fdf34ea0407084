//! The shutdown of a node, as far as systemd does it. Containers, whose units it does not stop, get
//! SIGTERM at the same time as all other processes that are left (systemd-shutdown(8)), and may write
//! until their grace period is over. The process of a volume serves them until the last has ended.

use crate::mounts::table::MountTable;
use anyhow::Result;
use nix::mount::{MntFlags, umount2};
use std::path::Path;

/// What PID 1 is called while it ends the processes that are left, cut as the kernel cuts names.
const SHUTDOWN: &str = "systemd-shutdow";

/// Whether the node is being shut down, and no new container will start.
pub(crate) fn is_under_way() -> bool {
    std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim() == SHUTDOWN)
}

/// Unmounts the file system at `staging` wherever it is mounted in this mount namespace, lazily: from
/// then on it lives for as long as a container has it, and its connection ends with the last one.
///
/// # Errors
/// The mount table cannot be read. A mount that cannot be removed is logged.
pub(crate) fn leave(staging: &Path) -> Result<()> {
    let table = MountTable::read()?;
    let Some(device) = table.top(staging).map(|top| top.device.clone()) else {
        return Ok(());
    };
    let ours: Vec<&Path> = table
        .iter()
        .filter(|mount| mount.device == device)
        .map(|mount| mount.mount_point.as_path())
        .collect();
    // Those above others came later.
    for point in ours.into_iter().rev() {
        if let Err(e) = umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            log::warn!("unmount {}: {e}", point.display());
        }
    }
    Ok(())
}
