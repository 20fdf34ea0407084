//! A volume on this node: what makes two mount calls mean the same one, and its place in the state
//! directory.
//!
//! ```text
//! <stateDir>/boot       which boot of the node the rest is of
//! <stateDir>/init.json  which build of the driver kubelet has loaded
//! <stateDir>/drain      while it is there, nothing is mounted: the driver is about to be removed
//! <stateDir>/locks/     targets that a call is busy with
//! <stateDir>/volumes/<id>/
//!     lock           held by the call that works on this volume
//!     volume.json    how ossfs is started for it
//!     passwd         its key pair, as ossfs reads it
//!     daemon         which process serves it
//!     staging/       where ossfs is mounted
//!     probed         when it was last seen to be served
//!     silent         since when its daemon has not answered
//!     starts         how many starts of its daemon have failed in a row, and when the last was
//!     targets/<key>  a TARGET that shows it, its path inside
//! ```

use crate::credentials::KeyPair;
use crate::deadline::Deadline;
use crate::lock::Lock;
use crate::ossfs::launch::Start;
use crate::private;
use crate::process::{Process, ProcessId, boot_id};
use crate::request::MountRequest;
use crate::target::{Target, hex};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The credentials that a volume really uses.
pub(crate) enum EffectiveCredentials<'a> {
    Keys(&'a KeyPair),
    RamRole(&'a str),
}

/// The directory of everything that the driver knows beyond one call. Root's alone.
pub(crate) struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// The directory at `path`, made if it is missing, refused if it is not root's alone.
    pub(crate) fn prepare(path: &Path) -> Result<Self> {
        let state = Self {
            path: path.to_owned(),
        };
        Self::make(path)?;
        private::make_directory(&state.volumes())?;
        private::make_directory(&state.locks())?;
        state.forget_other_boots()?;
        Ok(state)
    }

    /// Leaves `stamp`, the note of `init`, in the directory at `path`, made if it is missing.
    pub(crate) fn stamp(path: &Path, stamp: &[u8]) -> Result<()> {
        // Most often it is there: kubelet waits for this under a lock of the whole node.
        if let Err(e) = private::check_directory(path) {
            match path.exists() {
                true => return Err(e),
                false => Self::make(path)?,
            }
        }
        private::write(&path.join("init.json"), stamp)
    }

    fn make(path: &Path) -> Result<()> {
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .with_context(|| format!("make directory {}", parent.display()))?;
        }
        private::make_directory(path)
    }

    /// An error if the driver is about to be removed from this node. Asked under the lock of a
    /// target: who leaves the note waits for the locks that are held then, and so for every mount
    /// that has not seen it.
    pub(crate) fn check_drain(&self) -> Result<()> {
        let note = self.path.join("drain");
        if note.exists() {
            bail!(
                "this driver is being removed from the node and mounts nothing any more ({}): see \
                 oss-installer uninstall",
                note.display()
            );
        }
        Ok(())
    }

    /// Removes what was noted before the node was booted, if the directory outlives that: no mount
    /// and no daemon of then is left.
    fn forget_other_boots(&self) -> Result<()> {
        let (note, boot) = (self.path.join("boot"), boot_id()?);
        let is_noted = |noted: Option<String>| noted.as_deref() == Some(boot.as_str());
        if is_noted(private::read(&note)?) {
            return Ok(());
        }
        // The first calls of a boot may come at once.
        let path = self.locks().join("boot");
        let _lock = TargetLock {
            _lock: Lock::acquire(&path, Deadline::after(BOOT_TIME))?
                .context("the state directory is gone")?,
            path,
        };
        let noted = private::read(&note)?;
        if is_noted(noted.clone()) {
            return Ok(());
        }
        if noted.is_some() {
            for volume in self.all()? {
                log::info!("volume {} is from before the node was booted", volume.id());
                volume.remove()?;
            }
        }
        private::write(&note, boot.as_bytes())
    }

    /// The directory at `path` if there is one.
    pub(crate) fn find(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        Self::prepare(path).map(Some)
    }

    fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    fn locks(&self) -> PathBuf {
        self.path.join("locks")
    }

    pub(crate) fn volume(&self, id: &str) -> Volume {
        Volume {
            id: id.to_owned(),
            directory: self.volumes().join(id),
        }
    }

    /// Every volume that has a place here, in no order.
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

    /// The lock of `target` itself: calls about one target come one after the other, also when they
    /// mean different volumes.
    pub(crate) fn lock_target(&self, target: &Target, deadline: Deadline) -> Result<TargetLock> {
        let path = self.locks().join(target.key());
        let lock = Lock::acquire(&path, deadline)?.context("the state directory is gone")?;
        Ok(TargetLock { path, _lock: lock })
    }

    /// Removes the locks of targets that calls which were killed have left behind.
    pub(crate) fn remove_free_locks(&self) -> Result<()> {
        let path = self.locks();
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
        for entry in entries.flatten() {
            // Removed while it is held: who waits for it finds that it is the lock of nothing.
            if let Some(_held) = Lock::try_acquire(&entry.path())? {
                private::remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// How long the first call of a boot may be busy with what is from before.
const BOOT_TIME: Duration = Duration::from_secs(10);

/// The held lock of a target. Its file is removed with it.
pub(crate) struct TargetLock {
    path: PathBuf,
    _lock: Lock,
}

impl Drop for TargetLock {
    fn drop(&mut self) {
        // While the lock is held, so that nobody else's file goes; if it stays, the next call
        // takes it.
        let _ = private::remove(&self.path);
    }
}

/// The identity of a volume: calls that agree in all of this share one daemon, and no others.
/// The parts are hashed with their lengths, so that no two lists of parts look alike.
/// `alone` is what makes a volume that is not shared another one than every other.
pub(crate) fn identity(
    request: &MountRequest,
    credentials: &EffectiveCredentials,
    alone: Option<&Target>,
) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    let location = &request.location;
    part(location.bucket.as_str());
    part(location.path.as_ref().map_or("", |path| path.as_str()));
    part(location.endpoint.as_str());
    part(if request.read_only { "ro" } else { "rw" });
    match credentials {
        EffectiveCredentials::Keys(pair) => {
            part("keys");
            pair.hash_input().into_iter().for_each(&mut part);
        }
        EffectiveCredentials::RamRole(role) => {
            part("role");
            part(role);
        }
    }
    part(alone.map_or("", Target::as_str));
    for option in &request.options {
        part(&option.render());
    }
    hex(&hash.finalize())[..32].to_owned()
}

/// Whether `name` is made as the names of volumes and targets here are.
fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// One volume's place in the state directory. Everything in it is changed under its lock.
pub(crate) struct Volume {
    id: String,
    directory: PathBuf,
}

impl Volume {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The volume whose place is `directory`.
    pub(crate) fn at(directory: &Path) -> Option<Self> {
        Some(Self {
            id: directory.file_name()?.to_str()?.to_owned(),
            directory: directory.to_owned(),
        })
    }

    pub(crate) fn passwd_file(&self) -> PathBuf {
        self.directory.join("passwd")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.directory.join("staging")
    }

    fn start_file(&self) -> PathBuf {
        self.directory.join("volume.json")
    }

    fn daemon_file(&self) -> PathBuf {
        self.directory.join("daemon")
    }

    fn probed_file(&self) -> PathBuf {
        self.directory.join("probed")
    }

    fn silent_file(&self) -> PathBuf {
        self.directory.join("silent")
    }

    fn starts_file(&self) -> PathBuf {
        self.directory.join("starts")
    }

    /// Where a mount with other flags is made for a moment.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.directory.join("scratch")
    }

    fn targets_directory(&self) -> PathBuf {
        self.directory.join("targets")
    }

    fn lock_file(&self) -> PathBuf {
        self.directory.join("lock")
    }

    /// Makes the volume's place if it is missing, and locks it.
    pub(crate) fn lock(&self, deadline: Deadline) -> Result<Lock> {
        loop {
            private::make_directory(&self.directory)?;
            // Nothing: the last user before removed the place just now.
            if let Some(lock) = Lock::acquire(&self.lock_file(), deadline)? {
                private::make_directory(&self.targets_directory())?;
                return Ok(lock);
            }
        }
    }

    /// Locks the volume's place if it is there.
    pub(crate) fn lock_existing(&self, deadline: Deadline) -> Result<Option<Lock>> {
        if !self.directory.exists() {
            return Ok(None);
        }
        self.check_directories()?;
        Lock::acquire(&self.lock_file(), deadline)
    }

    /// Whether the volume's directories are root's alone, as far as they are there; those where
    /// something may be mounted are not looked at.
    fn check_directories(&self) -> Result<()> {
        private::check_directory(&self.directory)?;
        let targets = self.targets_directory();
        match targets.symlink_metadata() {
            Ok(_) => private::check_directory(&targets),
            // Not made yet, or removed by a call that was killed then.
            Err(_) => Ok(()),
        }
    }

    /// Locks the volume's place if no call is busy with it, and it is there at all.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let locked = self
            .check_directories()
            .and_then(|()| Lock::try_acquire(&self.lock_file()));
        match locked {
            Err(_) if !self.directory.exists() => Ok(None),
            locked => locked,
        }
    }

    /// Notes that `target` shows this volume.
    pub(crate) fn register(&self, target: &Target) -> Result<()> {
        private::write(
            &self.targets_directory().join(target.key()),
            target.as_str().as_bytes(),
        )
    }

    pub(crate) fn unregister(&self, target: &Target) -> Result<()> {
        private::remove(&self.targets_directory().join(target.key()))
    }

    /// Whether `target` is noted to show this volume.
    pub(crate) fn is_registered(&self, target: &Target) -> bool {
        self.targets_directory().join(target.key()).exists()
    }

    /// Notes that the volume is served, daemon and store, at this moment.
    pub(crate) fn note_probe(&self) -> Result<()> {
        private::write(&self.probed_file(), b"")
    }

    /// Whether the volume was seen to be served within the last `time`.
    pub(crate) fn was_probed_within(&self, time: Duration) -> bool {
        let modified =
            std::fs::symlink_metadata(self.probed_file()).and_then(|meta| meta.modified());
        // A time in the future says nothing.
        modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < time))
    }

    /// Since when (in seconds of Unix time) the daemon is known not to answer; `now`, if this is the
    /// first time.
    pub(crate) fn silent_since(&self, now: u64) -> Result<u64> {
        let path = self.silent_file();
        if let Some(since) = private::read(&path)?.and_then(|text| text.trim().parse().ok()) {
            return Ok(since);
        }
        private::write(&path, now.to_string().as_bytes())?;
        Ok(now)
    }

    pub(crate) fn forget_silence(&self) -> Result<()> {
        private::remove(&self.silent_file())
    }

    /// How many starts have failed in a row, and when the last one did (seconds of Unix time).
    pub(crate) fn failed_starts(&self) -> Result<(u32, u64)> {
        let text = private::read(&self.starts_file())?.unwrap_or_default();
        let mut words = text.split_whitespace();
        let mut next = || {
            words
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let count = u32::try_from(next()).unwrap_or(u32::MAX);
        Ok((count, next()))
    }

    /// Notes that so many starts have failed in a row, the last one at `now`.
    pub(crate) fn note_failed_starts(&self, count: u32, now: u64) -> Result<()> {
        private::write(&self.starts_file(), format!("{count} {now}").as_bytes())
    }

    pub(crate) fn forget_starts(&self) -> Result<()> {
        private::remove(&self.starts_file())
    }

    /// Whether any target is noted to show this volume.
    pub(crate) fn is_used(&self) -> Result<bool> {
        Ok(!self.target_files()?.is_empty())
    }

    /// The targets that are noted to show this volume.
    pub(crate) fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for file in self.target_files()? {
            // Gone meanwhile: an unmount call was quicker.
            if let Some(text) = private::read(&file)? {
                targets.extend(Target::parse(OsStr::new(&text)).ok());
            }
        }
        Ok(targets)
    }

    fn target_files(&self) -> Result<Vec<PathBuf>> {
        let path = self.targets_directory();
        match std::fs::read_dir(&path) {
            Ok(entries) => Ok(entries
                .flatten()
                .filter(|entry| entry.file_name().to_str().is_some_and(is_id))
                .map(|entry| entry.path())
                .collect()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).with_context(|| format!("list {}", path.display())),
        }
    }

    /// Writes down how ossfs is started.
    pub(crate) fn write_start(&self, start: &Start) -> Result<()> {
        let json = serde_json::to_vec(start).context("write volume.json")?;
        private::write(&self.start_file(), &json)
    }

    /// How ossfs is started; nothing once the volume is about to end.
    pub(crate) fn find_start(&self) -> Result<Option<Start>> {
        let path = self.start_file();
        private::read(&path)?
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .with_context(|| format!("read {}", path.display()))
    }

    /// Has systemd not start ossfs again.
    pub(crate) fn forget_start(&self) -> Result<()> {
        private::remove(&self.start_file())
    }

    /// Notes that `process` serves this volume.
    pub(crate) fn write_daemon(&self, process: &ProcessId) -> Result<()> {
        private::write(&self.daemon_file(), process.render().as_bytes())
    }

    /// The process that is noted as this volume's daemon, whether it runs or not.
    pub(crate) fn noted_daemon(&self) -> Result<Option<ProcessId>> {
        let text = private::read(&self.daemon_file())?;
        Ok(text.as_deref().and_then(ProcessId::parse))
    }

    /// The process that serves this volume, if it runs.
    pub(crate) fn daemon(&self) -> Result<Option<Process>> {
        match self.noted_daemon()? {
            Some(id) => id.open(),
            None => Ok(None),
        }
    }

    pub(crate) fn forget_daemon(&self) -> Result<()> {
        private::remove(&self.daemon_file())
    }

    /// Removes the directory of targets with what a killed call left half written in it.
    fn remove_targets_directory(&self) -> Result<()> {
        let path = self.targets_directory();
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            private::remove(&entry.path())?;
        }
        private::remove_directory(&path)
    }

    /// Removes the volume's place, which must not be mounted on any more. Called under the lock,
    /// which goes last.
    pub(crate) fn remove(&self) -> Result<()> {
        private::remove(&self.passwd_file())?;
        for file in [self.start_file(), self.daemon_file()] {
            private::remove(&file)?;
            private::remove(&file.with_extension("new"))?;
        }
        private::remove(&self.passwd_file().with_extension("new"))?;
        for file in [self.probed_file(), self.silent_file(), self.starts_file()] {
            private::remove(&file)?;
            private::remove(&file.with_extension("new"))?;
        }
        private::remove_directory(&self.scratch())?;
        private::remove_directory(&self.staging())?;
        self.remove_targets_directory()?;
        private::remove(&self.lock_file())?;
        match std::fs::remove_dir(&self.directory) {
            // A mount call is making its place here again already.
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", self.directory.display()))
            }
            _ => Ok(()),
        }
    }
}
