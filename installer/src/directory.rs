//! An open directory and the few operations on names in it. Nothing here follows a link, and
//! whatever the directory's path leads to meanwhile does not matter.

use anyhow::{Context as _, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, open, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, fchown, fsync, getegid, geteuid, unlinkat};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const OPEN: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// An open directory.
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    /// A link, a device, …
    Other,
}

impl Directory {
    /// The directory at `path`, or nothing if there is none.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        let opened = open(path, OPEN, Mode::empty());
        Self::opened(opened, path.to_owned())
    }

    /// The directory `name` in this one, or nothing if there is none.
    pub(crate) fn directory(&self, name: &str) -> Result<Option<Self>> {
        let opened = openat(&self.fd, name, OPEN, Mode::empty());
        Self::opened(opened, self.path.join(name))
    }

    fn opened(opened: nix::Result<OwnedFd>, path: PathBuf) -> Result<Option<Self>> {
        match opened {
            Ok(fd) => Ok(Some(Self { fd, path })),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("open directory {}", path.display())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The state of `name` itself, or nothing if there is no such name.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<FileStat>> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| self.act("stat", name)),
        }
    }

    pub(crate) fn kind(&self, name: &str) -> Result<Option<Kind>> {
        Ok(self.stat(name)?.map(|stat| kind(&stat)))
    }

    /// The file `name`, for reading.
    pub(crate) fn read(&self, name: &str) -> Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        openat(&self.fd, name, flags, Mode::empty())
            .map(File::from)
            .with_context(|| self.act("open", name))
    }

    /// Makes the new file `name` from what `fill` writes, with exactly `mode` and this process's
    /// user as its owner, and flushed to disk. On an error there is no such file.
    pub(crate) fn write(
        &self,
        name: &str,
        mode: Mode,
        fill: impl FnOnce(&mut File) -> std::io::Result<()>,
    ) -> Result<()> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file: File = openat(&self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map(File::from)
            .with_context(|| self.act("create", name))?;
        let written = fill(&mut file)
            .and_then(|()| Ok(own(&file, mode)?))
            .and_then(|()| file.sync_all());
        if written.is_err() {
            self.remove(name)?;
        }
        written.with_context(|| self.act("write", name))
    }

    /// Makes the directory `name` with exactly `mode`.
    pub(crate) fn make_directory(&self, name: &str, mode: Mode) -> Result<Self> {
        mkdirat(&self.fd, name, Mode::S_IRWXU).with_context(|| self.act("create", name))?;
        let directory = self
            .directory(name)?
            .with_context(|| self.act("open", name))?;
        own(&directory, mode).with_context(|| self.act("set the mode of", name))?;
        Ok(directory)
    }

    /// Gives this directory exactly `mode`, and this process's user and group.
    pub(crate) fn own(&self, mode: Mode) -> Result<()> {
        own(self, mode)
            .with_context(|| format!("set the owner and mode of {}", self.path.display()))
    }

    /// Renames `from` to `to`, in place of what is there (a directory: if that is empty).
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        renameat(&self.fd, from, &self.fd, to)
            .with_context(|| format!("rename {from} to {}", self.path.join(to).display()))
    }

    /// Exchanges two names in one step; false where the file system cannot.
    pub(crate) fn exchange(&self, one: &str, other: &str) -> Result<bool> {
        match renameat2(&self.fd, one, &self.fd, other, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => Ok(false),
            Err(e) => Err(e).with_context(|| self.act("exchange", other)),
        }
    }

    /// Removes the file or link `name` if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.unlink(name, UnlinkatFlags::NoRemoveDir)
    }

    /// Removes the empty directory `name` if it is there.
    pub(crate) fn remove_directory(&self, name: &str) -> Result<()> {
        self.unlink(name, UnlinkatFlags::RemoveDir)
    }

    fn unlink(&self, name: &str, flags: UnlinkatFlags) -> Result<()> {
        match unlinkat(&self.fd, name, flags) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(e).with_context(|| self.act("remove", name)),
        }
    }

    /// The names in it, `.` and `..` apart.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let context = || format!("list {}", self.path.display());
        let mut directory =
            Dir::openat(&self.fd, ".", OPEN, Mode::empty()).with_context(context)?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.with_context(context)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Flushes the names in it to disk.
    pub(crate) fn sync(&self) -> Result<()> {
        fsync(&self.fd).with_context(|| format!("sync {}", self.path.display()))
    }

    fn act(&self, act: &str, name: &str) -> String {
        format!("{act} {}", self.path.join(name).display())
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The type of the file with this state.
pub(crate) fn kind(stat: &FileStat) -> Kind {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Directory,
        _ => Kind::Other,
    }
}

/// Gives `file` exactly `mode`, whatever the umask, and this process's user and group, whatever
/// the directory would make it inherit.
fn own(file: impl AsFd, mode: Mode) -> nix::Result<()> {
    fchown(&file, Some(geteuid()), Some(getegid()))?;
    fchmod(&file, mode)
}
