//! One volume in the state directory: its lock, its targets, and the records about its daemon.

use crate::format;
use crate::kubelet::target::Target;
use crate::serve::{self, plan, plan::Plan};
use crate::state::layout::{INCOMPLETE, VolumeLayout, is_id};
use crate::state::start::{self, Start};
use crate::sys::boot_clock;
use crate::sys::deadline::Deadline;
use crate::sys::lock::Lock;
use crate::sys::process::{Process, ProcessId};
use crate::sys::root_only;
use anyhow::{Context as _, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A volume, whether it has a directory yet or not. Everything in it is changed under its lock.
pub(crate) struct Volume {
    id: String,
    layout: VolumeLayout,
}

impl Volume {
    pub(crate) fn new(id: &str, directory: PathBuf) -> Self {
        Self {
            id: id.to_owned(),
            layout: VolumeLayout::new(directory),
        }
    }

    /// The volume whose directory is `directory`.
    pub(crate) fn at(directory: &Path) -> Option<Self> {
        let id = directory.file_name()?.to_str()?;
        Some(Self::new(id, directory.to_owned()))
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn directory(&self) -> &Path {
        self.layout.directory()
    }

    pub(crate) fn passwd_file(&self) -> PathBuf {
        self.layout.passwd()
    }

    /// Where ossfs is mounted.
    pub(crate) fn staging(&self) -> PathBuf {
        self.layout.staging()
    }

    /// Where builds before `oss serve` made a mount with other flags for a moment.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.layout.scratch()
    }

    /// Makes the volume's directory if it is missing, and locks it.
    pub(crate) fn lock(&self, deadline: Deadline) -> Result<Lock> {
        loop {
            root_only::make_directory(self.directory())?;
            // None: the call that released the last target has just removed the directory.
            if let Some(lock) = Lock::acquire(&self.layout.lock(), deadline)? {
                root_only::make_directory(&self.layout.targets())?;
                return Ok(lock);
            }
        }
    }

    /// Locks the volume; `None` if it has no directory.
    pub(crate) fn lock_existing(&self, deadline: Deadline) -> Result<Option<Lock>> {
        if !self.directory().exists() {
            return Ok(None);
        }
        self.check_directories()?;
        Lock::acquire(&self.layout.lock(), deadline)
    }

    /// An error if one of the volume's directories is not root's alone; mount points are not checked.
    fn check_directories(&self) -> Result<()> {
        root_only::check_directory(self.directory())?;
        let targets = self.layout.targets();
        match targets.symlink_metadata() {
            Ok(_) => root_only::check_directory(&targets),
            // Not made yet, or removed by a call that was killed after that.
            Err(_) => Ok(()),
        }
    }

    /// Locks the volume; `None` if another call holds the lock, or it has no directory.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock>> {
        let locked = self
            .check_directories()
            .and_then(|()| Lock::try_acquire(&self.layout.lock()));
        match locked {
            Err(_) if !self.directory().exists() => Ok(None),
            locked => locked,
        }
    }

    /// Records that this volume is bound to `target`.
    pub(crate) fn register(&self, target: &Target) -> Result<()> {
        root_only::write(
            &self.layout.targets().join(target.key()),
            target.as_str().as_bytes(),
        )
    }

    pub(crate) fn unregister(&self, target: &Target) -> Result<()> {
        root_only::remove(&self.layout.targets().join(target.key()))
    }

    /// Whether this volume is recorded to be bound to `target`.
    pub(crate) fn is_registered(&self, target: &Target) -> bool {
        self.layout.targets().join(target.key()).exists()
    }

    /// The user on the node that is recorded as this volume's own.
    pub(crate) fn uid(&self) -> Result<Option<u32>> {
        let text = root_only::read(&self.layout.uid())?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    pub(crate) fn record_uid(&self, uid: u32) -> Result<()> {
        root_only::write(&self.layout.uid(), uid.to_string().as_bytes())
    }

    /// Records how the volume's process serves it.
    pub(crate) fn write_plan(&self, plan: &Plan) -> Result<()> {
        root_only::write(&self.layout.plan(), plan.render()?.as_bytes())
    }

    /// How the volume's process serves it; `None` for a volume that a build before `oss serve` mounted.
    pub(crate) fn plan(&self) -> Result<Option<Plan>> {
        let path = self.layout.plan();
        root_only::read(&path)?
            .map(|text| Plan::parse(&text))
            .transpose()
            .with_context(|| format!("read {}", path.display()))
    }

    pub(crate) fn remove_plan(&self) -> Result<()> {
        root_only::remove(&self.layout.plan())
    }

    pub(crate) fn remove_keys(&self) -> Result<()> {
        root_only::remove(&self.layout.passwd())
    }

    /// Whether the volume has a process, `oss serve`; false for one that a build before it mounted.
    pub(crate) fn has_plan(&self) -> bool {
        self.layout.plan().exists()
    }

    /// The lock of probes: held for as long as a process of one exists.
    pub(crate) fn probe_lock(&self) -> PathBuf {
        self.layout.probing()
    }

    /// Records whether the volume, whose lock is held, could be healed.
    pub(crate) fn record_healed(&self, healed: bool) -> Result<()> {
        match healed {
            true => root_only::remove(&self.layout.unhealed()),
            false => root_only::write(&self.layout.unhealed(), b""),
        }
    }

    /// Whether the volume could not be healed the last time.
    pub(crate) fn is_unhealed(&self) -> bool {
        self.layout.unhealed().exists()
    }

    /// Records that daemon and store answer at this moment.
    pub(crate) fn record_probe(&self) -> Result<()> {
        let now = boot_clock::render(boot_clock::now());
        root_only::write(&self.layout.probed(), now.as_bytes())
    }

    /// Whether daemon and store answered within the last `time`, whatever was done to the node's clock
    /// meanwhile.
    pub(crate) fn was_probed_within(&self, time: Duration) -> bool {
        let record = root_only::read(&self.layout.probed()).ok().flatten();
        record
            .and_then(|text| boot_clock::age(&text, boot_clock::now()))
            .is_some_and(|age| age < time)
    }

    /// Records that the unmount call no longer waits for the process of the volume, since now or as the
    /// earlier record `since` has it: whatever is left is for that process to remove.
    pub(crate) fn record_abandoned(&self, since: Option<String>) -> Result<()> {
        let since = since.unwrap_or_else(|| boot_clock::render(boot_clock::now()));
        root_only::write(&self.layout.abandoned(), since.as_bytes())
    }

    /// For how long an unmount call has no longer waited for the process of the volume. A marker that does
    /// not tell, of an earlier build, is written anew.
    pub(crate) fn abandoned_for(&self) -> Result<Duration> {
        let record = root_only::read(&self.layout.abandoned())?;
        match record.and_then(|text| boot_clock::age(&text, boot_clock::now())) {
            Some(age) => Ok(age),
            None => self.record_abandoned(None).map(|()| Duration::ZERO),
        }
    }

    /// Removes that record, and returns it.
    pub(crate) fn clear_abandoned(&self) -> Result<Option<String>> {
        let since = root_only::read(&self.layout.abandoned())?;
        root_only::remove(&self.layout.abandoned())?;
        Ok(since)
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.layout.abandoned().exists()
    }

    /// Whether this volume is recorded to be bound to any target.
    pub(crate) fn is_used(&self) -> Result<bool> {
        Ok(!self.target_files()?.is_empty())
    }

    /// The targets that this volume is recorded to be bound to.
    pub(crate) fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for file in self.target_files()? {
            // An unmount call has removed it meanwhile.
            if let Some(text) = root_only::read(&file)? {
                targets.extend(Target::parse(OsStr::new(&text)).ok());
            }
        }
        Ok(targets)
    }

    fn target_files(&self) -> Result<Vec<PathBuf>> {
        let path = self.layout.targets();
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

    /// Records how ossfs is started.
    pub(crate) fn write_start(&self, start: &Start) -> Result<()> {
        let json = serde_json::to_vec(start).context("write volume.json")?;
        root_only::write(&self.layout.start(), &json)
    }

    /// How ossfs is started; `None` once the volume is about to be removed.
    pub(crate) fn read_start(&self) -> Result<Option<Start>> {
        let path = self.layout.start();
        root_only::read(&path)?
            .map(|text| Start::parse(&text))
            .transpose()
            .with_context(|| format!("read {}", path.display()))
    }

    /// An error if a newer build of the driver has mounted this volume: what it recorded is to be left
    /// alone. What cannot be read at all is no error, it is recorded anew.
    pub(crate) fn check_format(&self) -> Result<()> {
        let layout = &self.layout;
        // Without a start the volume is about to be removed.
        if !layout.start().exists() {
            return Ok(());
        }
        for (path, newest) in [
            (layout.start(), start::VERSION),
            (layout.plan(), plan::VERSION),
        ] {
            if let Some(text) = root_only::read(&path)? {
                format::check(&text, newest).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Keeps systemd from serving the volume again.
    pub(crate) fn remove_start(&self) -> Result<()> {
        root_only::remove(&self.layout.start())
    }

    /// Records `process` as this volume's daemon.
    pub(crate) fn record_daemon(&self, process: &ProcessId) -> Result<()> {
        root_only::write(&self.layout.daemon(), process.render().as_bytes())
    }

    /// The process that is recorded as this volume's daemon, running or not.
    pub(crate) fn recorded_daemon(&self) -> Result<Option<ProcessId>> {
        let text = root_only::read(&self.layout.daemon())?;
        Ok(text.as_deref().and_then(ProcessId::parse))
    }

    /// The daemon of this volume, if it is running.
    pub(crate) fn running_daemon(&self) -> Result<Option<Process>> {
        match self.recorded_daemon()? {
            Some(id) => id.open(),
            None => Ok(None),
        }
    }

    /// Removes the directory of targets, with the incomplete files of killed calls.
    fn remove_targets_directory(&self) -> Result<()> {
        let path = self.layout.targets();
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            root_only::remove(&entry.path())?;
        }
        root_only::remove_directory(&path)
    }

    /// Removes the volume's directory, in which nothing may be mounted any more. To be called under
    /// the lock, which is removed last.
    pub(crate) fn remove(&self) -> Result<()> {
        let layout = &self.layout;
        // The keys first.
        for file in [
            layout.passwd(),
            layout.start(),
            layout.plan(),
            layout.uid(),
            layout.daemon(),
            layout.probed(),
            layout.probing(),
            layout.unhealed(),
            layout.abandoned(),
        ]
        .into_iter()
        .chain(layout.of_builds_before())
        {
            root_only::remove(&file)?;
            root_only::remove(&file.with_extension(INCOMPLETE))?;
        }
        serve::remove_files(self.directory())?;
        root_only::remove_directory(&self.scratch())?;
        root_only::remove_directory(&self.staging())?;
        self.remove_targets_directory()?;
        root_only::remove(&self.layout.lock())?;
        match std::fs::remove_dir(self.directory()) {
            // A mount call has begun to make it again.
            Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(()),
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("remove {}", self.directory().display()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Volume;
    use crate::sys::{boot_clock, root_only};
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_process_is_left_to_finish_from_the_first_mark_on() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new("ab", dir.path().join("ab"));
        root_only::make_directory(volume.directory()).unwrap();
        let (hour, path) = (
            Duration::from_secs(3600),
            volume.directory().join("abandoned"),
        );
        let write = |text: &str| root_only::write(&path, text.as_bytes()).unwrap();
        let past = boot_clock::now().saturating_sub(Duration::from_secs(1));
        write(&boot_clock::render(past));
        assert!(volume.abandoned_for().unwrap() > Duration::ZERO);
        // As an earlier build left it, and of the future: from now on.
        for text in ["".to_owned(), boot_clock::render(boot_clock::now() + hour)] {
            write(&text);
            assert_eq!(volume.abandoned_for().unwrap(), Duration::ZERO, "{text}");
            assert!(volume.abandoned_for().unwrap() < hour);
            assert_ne!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_probe_holds_for_its_time_whatever_the_clock_of_the_node_says() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new("ab", dir.path().join("ab"));
        root_only::make_directory(volume.directory()).unwrap();
        let (hour, second) = (Duration::from_secs(3600), Duration::from_secs(1));
        assert!(!volume.was_probed_within(hour));
        volume.record_probe().unwrap();
        let path = volume.directory().join("probed");
        let set_modified = |time| File::open(&path).unwrap().set_modified(time).unwrap();
        for time in [SystemTime::UNIX_EPOCH, SystemTime::now() + hour] {
            set_modified(time);
            assert!(volume.was_probed_within(hour), "{time:?}");
        }
        let write = |at| root_only::write(&path, boot_clock::render(at).as_bytes()).unwrap();
        write(boot_clock::now() - second);
        set_modified(SystemTime::now());
        assert!(!volume.was_probed_within(second), "long ago");
        write(boot_clock::now() + hour);
        assert!(!volume.was_probed_within(2 * hour), "in the future");
        // As earlier builds left it.
        root_only::write(&path, b"").unwrap();
        assert!(!volume.was_probed_within(hour));
    }
}
