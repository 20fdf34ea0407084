//! Unmounting everything at a path: stacked, dead and hung layers, without following links and
//! without stat(2), which would send a request to the daemon.

use crate::mounts::directory::Directory;
use crate::sys::deadline::Deadline;
use crate::sys::helper::Helper;
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// How long to wait before trying again to unmount a busy mount: there is no event for it.
const BUSY_RETRY: Duration = Duration::from_millis(20);
/// More layers than healing can ever leave; an end for the loop if the kernel does not give one.
const MAX_LAYERS: usize = 10_000;

/// Time for a helper to answer after the deadline that it keeps itself.
const GRACE: Duration = Duration::from_secs(1);

/// Unmounts every layer at `path`. A layer that is busy is waited for until `busy_until`, then
/// detached lazily: open files stay usable. Nothing mounted, or no such directory, is
/// a success. Returns whether a layer had to be detached.
///
/// The last mount of a file system is torn down within the call, which waits for a daemon that has
/// dirty pages to take: where that may be, `in_helper` runs this in a process of its own.
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
    bail!("unmount {}: more than {MAX_LAYERS} layers", path.display())
}

/// `all_layers` in a helper process, for layers whose end may have to wait for a daemon. An error if
/// the helper has not ended soon after `busy_until`; it is left to end by itself.
pub(crate) fn in_helper(path: &Path, busy_until: Deadline) -> Result<bool> {
    let helper = UnmountAll {
        path: path.to_owned(),
        busy_time: busy_until.remaining(),
    };
    let deadline = Deadline::after(busy_until.remaining() + GRACE);
    match helper.call(deadline)? {
        Some(detached) => Ok(detached),
        None => bail!("timed out unmounting {}", path.display()),
    }
}

/// The helper process of `in_helper`.
#[derive(Serialize, Deserialize)]
pub(crate) struct UnmountAll {
    path: PathBuf,
    /// How long a busy layer is waited for.
    busy_time: Duration,
}

impl Helper for UnmountAll {
    const NAME: &'static str = "oss-umount";
    /// Whether a layer was detached.
    type Output = bool;

    fn run(self) -> Result<bool> {
        all_layers(&self.path, Deadline::after(self.busy_time))
    }
}
