//! The state directory: everything that the driver knows beyond one call, root's alone.

use crate::kubelet::target::Target;
use crate::state::layout::{BOOT, DRAIN, LOCKS, VOLUMES, is_id};
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::lock::Lock;
use crate::sys::process::boot_id;
use crate::sys::root_only;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the first call after a boot may take to remove what is from before.
const BOOT_TIME: Duration = Duration::from_secs(10);

/// An existing state directory, which only root can use.
pub(crate) struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// The directory at `path`; `None` if there is none. An error if it is not root's alone. Nothing
    /// is changed.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        root_only::check_directory(path)?;
        Ok(Some(Self {
            path: path.to_owned(),
        }))
    }

    /// The directory at `path`, made if it is missing and prepared.
    pub(crate) fn make(path: &Path) -> Result<Self> {
        make_directory(path)?;
        let state = Self {
            path: path.to_owned(),
        };
        state.prepare()?;
        Ok(state)
    }

    /// Makes the directories in it that are missing, and removes volumes from before the node was
    /// booted.
    pub(crate) fn prepare(&self) -> Result<()> {
        root_only::make_directory(&self.volumes())?;
        root_only::make_directory(&self.locks())?;
        self.remove_other_boots()
    }

    /// Writes the file `name` with `content` in the directory at `path`, which is made if it is
    /// missing.
    pub(crate) fn write_file(path: &Path, name: &str, content: &[u8]) -> Result<()> {
        // Most often it is there: kubelet waits for `init` under a lock of the whole node.
        if let Err(e) = root_only::check_directory(path) {
            match path.exists() {
                true => return Err(e),
                false => make_directory(path)?,
            }
        }
        root_only::write(&path.join(name), content)
    }

    /// An error if the driver is about to be removed from this node. To be called under the lock of
    /// a target: the installer leaves the marker, and then waits for the locks that are held, and so
    /// for every mount call that has not seen it.
    pub(crate) fn check_drain(&self) -> Result<()> {
        let marker = self.path.join(DRAIN);
        if marker.exists() {
            bail!(
                "this driver is being removed from the node and mounts nothing any more ({}): see \
                 oss-installer uninstall",
                marker.display()
            );
        }
        Ok(())
    }

    /// Removes the volumes from before the node was booted, if the directory outlives that: no mount
    /// and no daemon of theirs is left.
    fn remove_other_boots(&self) -> Result<()> {
        let (record, boot) = (self.path.join(BOOT), boot_id()?);
        let is_current = |recorded: &Option<String>| recorded.as_deref() == Some(boot.as_str());
        if is_current(&root_only::read(&record)?) {
            return Ok(());
        }
        // The first calls of a boot may run at once.
        let path = self.locks().join(BOOT);
        let _lock = TargetLock::acquire(path, Deadline::after(BOOT_TIME))?;
        let recorded = root_only::read(&record)?;
        if is_current(&recorded) {
            return Ok(());
        }
        if recorded.is_some() {
            for volume in self.all()? {
                log::info!(
                    "removing volume {}: it is from before the node was booted",
                    volume.id()
                );
                volume.remove()?;
            }
        }
        root_only::write(&record, boot.as_bytes())
    }

    fn volumes(&self) -> PathBuf {
        self.path.join(VOLUMES)
    }

    fn locks(&self) -> PathBuf {
        self.path.join(LOCKS)
    }

    /// The volume `id`, whether it has a directory or not.
    pub(crate) fn volume(&self, id: &str) -> Volume {
        Volume::new(id, self.volumes().join(id))
    }

    /// Every volume that has a directory here, in no order.
    pub(crate) fn all(&self) -> Result<Vec<Volume>> {
        let path = self.volumes();
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
        let mut volumes = Vec::new();
        for entry in entries {
            let name = entry
                .with_context(|| format!("list {}", path.display()))?
                .file_name();
            volumes.extend(
                name.to_str()
                    .filter(|id| is_id(id))
                    .map(|id| self.volume(id)),
            );
        }
        Ok(volumes)
    }

    /// The lock of `target` itself: calls about one target run one after the other, also when they
    /// mean different volumes.
    pub(crate) fn lock_target(&self, target: &Target, deadline: Deadline) -> Result<TargetLock> {
        TargetLock::acquire(self.locks().join(target.key()), deadline)
    }

    /// The lock under which users are given to volumes.
    pub(crate) fn lock_uids(&self, deadline: Deadline) -> Result<TargetLock> {
        TargetLock::acquire(self.locks().join("uids"), deadline)
    }

    /// Removes the stale locks of targets: those that calls which were killed have left.
    pub(crate) fn remove_stale_locks(&self) -> Result<()> {
        let path = self.locks();
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
        for entry in entries.flatten() {
            // Removed while it is held: a call that waits for it finds that the file is gone.
            if let Some(_held) = Lock::try_acquire(&entry.path())? {
                root_only::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Makes the state directory at `path`, and the directories above it, if they are missing.
fn make_directory(path: &Path) -> Result<()> {
    root_only::make_parents(path)?;
    root_only::make_directory(path)
}

/// The held lock of a target. Its file is removed with it.
pub(crate) struct TargetLock {
    path: PathBuf,
    _lock: Lock,
}

impl TargetLock {
    fn acquire(path: PathBuf, deadline: Deadline) -> Result<Self> {
        let lock = Lock::acquire(&path, deadline)?.context("the state directory is gone")?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for TargetLock {
    fn drop(&mut self) {
        // While the lock is held, so that no other call's file is removed; if it stays, the next
        // call takes it.
        let _ = root_only::remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::StateDirectory;

    #[test]
    fn finding_a_state_directory_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(StateDirectory::find(&path).unwrap().is_none());
        assert!(!path.exists());
        crate::sys::root_only::make_directory(&path).unwrap();
        assert!(StateDirectory::find(&path).unwrap().is_some());
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn volumes_from_before_a_boot_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = StateDirectory::make(&path).unwrap();
        let volume = state.volume(&"0".repeat(32));
        crate::sys::root_only::make_directory(volume.directory()).unwrap();
        state.prepare().unwrap();
        assert_eq!(state.all().unwrap().len(), 1);
        crate::sys::root_only::write(&path.join("boot"), b"another").unwrap();
        state.prepare().unwrap();
        assert_eq!(state.all().unwrap().len(), 0);
    }
}
