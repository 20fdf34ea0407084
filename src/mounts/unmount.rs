//! Unmounting everything at a path: stacked, dead and hung layers, without following links and
//! without a stat, which would ask the daemon.

use crate::deadline::Deadline;
use crate::mounts::directory::Directory;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// How long to wait before asking again whether a mount is still busy: there is no event for it.
const BUSY_RETRY: Duration = Duration::from_millis(20);
/// More layers than healing can ever leave; an end for the loop if the kernel does not give one.
const MAX_LAYERS: usize = 10_000;

/// Unmounts every layer at `path`. A layer that is busy is waited for until `busy_until`, then
/// detached lazily: who has files open there keeps them. Nothing mounted, or no such directory, is
/// a success. Returns whether a layer had to be detached.
///
/// The last mount of a file system is torn down within the call, which waits for a daemon that has
/// dirty pages to take: where that may be, `child::unmount` runs this in a process of its own.
pub(crate) fn all_layers(path: &Path, busy_until: Deadline) -> Result<bool> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(false);
    };
    let Some(parent) = Directory::open(parent)? else {
        return Ok(false);
    };
    let at = parent.proc_path().join(name);
    let mut detached = false;
    let mut layers = 0;
    while layers < MAX_LAYERS {
        let lazily = if busy_until.has_passed() {
            MntFlags::MNT_DETACH
        } else {
            MntFlags::empty()
        };
        match umount2(&at, MntFlags::UMOUNT_NOFOLLOW | lazily) {
            Ok(()) => {
                layers += 1;
                detached |= !lazily.is_empty();
            }
            // Not a mount point, or a plain link or nothing at all.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(detached),
            Err(Errno::EBUSY) => sleep(BUSY_RETRY.min(busy_until.remaining())),
            Err(e) => return Err(e).with_context(|| format!("unmount {}", path.display())),
        }
    }
    anyhow::bail!("unmount {}: there is no end of layers", path.display())
}
