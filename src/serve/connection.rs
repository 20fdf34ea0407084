//! The FUSE connection of a volume: made here with open(2) and mount(2), so that every mount option
//! is ours, and reads and writes of its descriptor. See fuse(4) and the kernel's
//! Documentation/filesystems/fuse.rst.

use crate::mounts::table::{Mount, MountTable};
use crate::serve::plan::Plan;
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What the kernel is asked through.
const DEVICE: &str = "/dev/fuse";
/// Its number, 10:229 (the kernel's Documentation/admin-guide/devices.txt).
const NUMBER: u64 = nix::sys::stat::makedev(10, 229);
/// Where the kernel shows connections (fusectl).
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// Layers of mounts that are taken off a staging directory at most.
const MAX_LAYERS: usize = 64;

/// What a read of the connection brought.
pub(crate) enum Read {
    /// A message of so many bytes.
    Message(usize),
    /// Nothing for now.
    Empty,
    /// The file system is unmounted, or the connection aborted.
    Ended,
}

/// Mounts a new connection on `staging` as `plan` says, private to this mount namespace's peers,
/// and returns its descriptor. Whatever is mounted there (a connection that nobody serves) is taken
/// off first, lazily.
///
/// # Errors
/// No FUSE on this node, or mount(2) refused. Nothing is left mounted then.
pub(crate) fn mount_new(plan: &Plan, staging: &Path) -> Result<OwnedFd> {
    let device = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_CLOEXEC.bits())
        .open(DEVICE)
        .with_context(|| format!("open {DEVICE} (is the fuse module loaded? modprobe fuse)"))?;
    if device.metadata().is_ok_and(|meta| meta.rdev() != NUMBER) {
        bail!("{DEVICE} is not the FUSE device (character device 10:229)");
    }
    unmount_all(staging)?;
    let data = plan.mount_data(device.as_raw_fd());
    mount(
        Some(plan.source.as_str()),
        staging,
        Some(format!("fuse.{}", plan.subtype).as_str()),
        plan.mount.flags(),
        Some(data.as_str()),
    )
    .with_context(|| format!("mount a FUSE file system on {}", staging.display()))?;
    let none = None::<&str>;
    // What others mount inside does not come back here.
    if let Err(e) = mount(none, staging, none, MsFlags::MS_PRIVATE, none) {
        let _ = umount2(staging, MntFlags::MNT_DETACH);
        return Err(e).with_context(|| format!("make {} private", staging.display()));
    }
    Ok(device.into())
}

/// Takes everything off `staging` that is mounted there, lazily.
pub(crate) fn unmount_all(staging: &Path) -> Result<()> {
    for _ in 0..MAX_LAYERS {
        match umount2(staging, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point.
            Err(Errno::EINVAL) => return Ok(()),
            Err(e) => return Err(e).with_context(|| format!("unmount {}", staging.display())),
        }
    }
    Ok(())
}

/// Has reads of the connection never wait.
pub(crate) fn set_nonblocking(fuse: BorrowedFd<'_>) -> Result<()> {
    fcntl(fuse, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
        .context("set the FUSE descriptor non-blocking")?;
    Ok(())
}

/// Reads one message into `buffer`, which must hold the largest (max_write and 4 KiB).
///
/// # Errors
/// What the kernel has no reason to answer.
pub(crate) fn read(fuse: impl AsFd, buffer: &mut [u8]) -> Result<Read> {
    loop {
        return match nix::unistd::read(&fuse, buffer) {
            Ok(bytes) => Ok(Read::Message(bytes)),
            // ENOENT: the request was given up between its announcement and this read.
            Err(Errno::EINTR | Errno::ENOENT) => continue,
            Err(Errno::EAGAIN) => Ok(Read::Empty),
            Err(Errno::ENODEV | Errno::ECONNABORTED) => Ok(Read::Ended),
            Err(e) => Err(e).context("read a request of the kernel"),
        };
    }
}

/// Gives the kernel an answer or a notification.
pub(crate) fn write(fuse: impl AsFd, message: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::io::writev(&fuse, &[IoSlice::new(message)]) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Errno::from_raw(e.raw_os_error())),
        }
    }
}

/// Whether a FUSE file system is mounted on `staging` in this mount namespace.
pub(crate) fn is_mounted(staging: &Path) -> bool {
    MountTable::read().is_ok_and(|table| top(&table, staging).is_some())
}

/// The FUSE file system that shows at `staging`.
fn top<'a>(table: &'a MountTable, staging: &Path) -> Option<&'a Mount> {
    let mount = table.top(staging)?;
    mount.fs_type.starts_with("fuse").then_some(mount)
}

/// The kernel's view of one connection, as far as fusectl is mounted.
pub(crate) struct Control {
    directory: PathBuf,
}

impl Control {
    /// That of the connection mounted on `staging`. Never asks the mounted file system itself. fusectl
    /// is mounted where systemd does it as well, if it is not there; None if it cannot be.
    pub(crate) fn find(staging: &Path) -> Option<Self> {
        let table = MountTable::read().ok()?;
        let (_, minor) = top(&table, staging)?.device.split_once(':')?;
        let directory = Path::new(CONNECTIONS).join(minor);
        if !directory.exists() {
            let (none, flags) = (None::<&str>, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
            // The next look tells.
            let _ = mount(
                Some("fusectl"),
                CONNECTIONS,
                Some("fusectl"),
                flags | MsFlags::MS_NOEXEC,
                none,
            );
        }
        let meta = std::fs::metadata(&directory).ok()?;
        (meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw())
            .then_some(Self { directory })
    }

    /// How many requests have no answer, those included that nobody has read.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.directory.join("waiting")).ok()?;
        text.trim().parse().ok()
    }

    /// Whether the connection is still there: something has its file system mounted, or open.
    pub(crate) fn exists(&self) -> bool {
        self.directory.exists()
    }

    /// Ends the connection: every request, present and future, fails.
    pub(crate) fn abort(&self) -> Result<()> {
        std::fs::write(self.directory.join("abort"), "1").context("abort the FUSE connection")
    }
}
