//! An open directory, reached step by step without following a symbolic link, so that what was
//! checked is what is mounted on. Opening one sends no request to a FUSE daemon (O_PATH, open(2)),
//! so a dead or hung mount cannot block it.

use crate::mounts::table::MountTable;
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

const OPEN: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// An open directory, to mount on and to look up names in (not for reading).
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// The directory at the absolute `path`, or nothing if it does not exist. A symbolic link or
    /// anything else that is no directory is an error, in the middle of the path too.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let mut fd = open("/", OPEN, Mode::empty()).context("open /")?;
        let mut walked = PathBuf::from("/");
        for part in path.components() {
            let Component::Normal(name) = part else {
                continue;
            };
            walked.push(name);
            fd = match openat(&fd, name, OPEN, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::ENOENT) => return Ok(None),
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    bail!("{} is a symbolic link or not a directory", walked.display())
                }
                Err(e) => bail!("open {}: {e}", walked.display()),
            };
        }
        Ok(Some(Self {
            fd,
            path: path.to_owned(),
        }))
    }

    /// A path for system calls that leads to the open directory itself, and to the top of what is
    /// mounted on it.
    pub(crate) fn proc_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// Whether something is mounted at this directory's path in this mount namespace.
    pub(crate) fn is_mount_point(&self) -> Result<bool> {
        let Some(parent) = self.path.parent().map(Self::open).transpose()?.flatten() else {
            return Ok(true);
        };
        match (self.mount_id()?, parent.mount_id()?) {
            (Some(own), Some(parent)) => Ok(own != parent),
            // Before Linux 3.15 only the whole table has the answer.
            _ => Ok(MountTable::read()?.top(&self.path).is_some()),
        }
    }

    /// The id of the mount that the open directory is on (proc_pid_fdinfo(5)).
    fn mount_id(&self) -> Result<Option<u64>> {
        let path = format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd());
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Ok(mount_id_in(&text))
    }
}

/// The mount's id in the text of an fdinfo file; kernels before 3.15 do not give it.
pub(crate) fn mount_id_in(fdinfo: &str) -> Option<u64> {
    let id = fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))?;
    id.trim().parse().ok()
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether something is mounted at `path`; not, where nothing is there at all.
pub(crate) fn is_mount_point(path: &Path) -> Result<bool> {
    match Directory::open(path)? {
        Some(directory) => directory.is_mount_point(),
        None => Ok(false),
    }
}
