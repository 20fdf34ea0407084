//! A lock file: flock(2) with a deadline, on a file that its last holder may remove. It is released
//! by closing it and never unlocked: a child that has inherited it continues to hold it.

use crate::sys::deadline::Deadline;
use crate::sys::root_only;
use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc;

/// A held lock, released when dropped or when the process ends, but for a child that has it, too.
pub struct Lock(File);

impl Lock {
    /// The lock of the file at `path`, which is made if it is missing; `None` if its directory is
    /// missing. An error if another call holds it until `deadline`.
    pub fn acquire(path: &Path, deadline: Deadline) -> Result<Option<Self>> {
        loop {
            if path.parent().is_some_and(|dir| !dir.exists()) {
                return Ok(None);
            }
            let file = root_only::open(path)?;
            let lock = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => file,
                Err(Errno::WOULDBLOCK) => wait_for(file, deadline)
                    .with_context(|| format!("lock {}", path.display()))?
                    .context("timed out waiting for another operation on this volume")?,
                Err(e) => return Err(e).with_context(|| format!("lock {}", path.display())),
            };
            // The previous holder may have removed the file: then this lock protects nothing.
            if is_at(&lock, path)? {
                return Ok(Some(Self(lock)));
            }
        }
    }

    /// The lock; `None` if it is held.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let file = root_only::open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if is_at(&file, path)? => Ok(Some(Self(file))),
            Ok(()) | Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("lock {}", path.display())),
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Locks `file`, an open file or directory that somebody else may hold (flock(2)). It comes back locked,
/// until it is closed; `None` if it is still held at `deadline`.
///
/// # Errors
/// What flock(2) reports.
pub fn wait_for(file: File, deadline: Deadline) -> Result<Option<File>> {
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => return Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => {}
        Err(e) => return Err(e.into()),
    }
    // In a thread: flock(2) has no timeout. A thread that gets the lock too late releases it, or ends
    // with the process.
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let locked = flock(&file, FlockOperation::LockExclusive);
        sender.send(locked.map(|()| file))
    });
    match receiver.recv_timeout(deadline.remaining()) {
        Ok(locked) => Ok(Some(locked?)),
        Err(_) => Ok(None),
    }
}

fn is_at(lock: &File, path: &Path) -> Result<bool> {
    let held = lock.metadata().context("stat the lock")?;
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (held.dev(), held.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("stat {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::Lock;
    use crate::sys::deadline::Deadline;
    use std::time::Duration;

    #[test]
    fn a_held_lock_is_waited_for_until_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let soon = Deadline::after(Duration::from_millis(50));
        let later = Deadline::after(Duration::from_secs(60));
        let held = Lock::acquire(&path, later).unwrap().unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        assert!(Lock::acquire(&path, soon).is_err());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::acquire(&path, later).unwrap().is_some());
            drop(held);
            assert!(waiting.join().unwrap());
        });
        assert!(Lock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_on_a_removed_file_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let later = Deadline::after(Duration::from_secs(60));
        let held = Lock::acquire(&path, later).unwrap().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::acquire(&path, later).unwrap());
            std::fs::remove_file(&path).unwrap();
            drop(held);
            assert!(waiting.join().unwrap().is_some());
        });
        assert!(path.exists());
        assert!(
            Lock::acquire(&dir.path().join("gone/lock"), later)
                .unwrap()
                .is_none()
        );
    }
}
