//! Why the process of a volume could not begin to serve: a file that it leaves in the volume's directory,
//! for the mount call that waits for it.

use crate::sys::root_only;
use crate::text::strip_control;
use anyhow::Result;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The file's name.
pub(crate) const FILE: &str = "failure";
/// The longest reason that is read, in bytes.
const LONGEST: u64 = 4096;

/// Leaves `reason` in the directory `volume`, in one line. The file is renamed into its place, for which
/// clients watch. Where it cannot be written, that is logged.
pub(crate) fn record(volume: &Path, reason: &str) {
    let reason = strip_control(reason);
    if let Err(e) = root_only::write(&volume.join(FILE), reason.as_bytes()) {
        log::warn!("{e:#}");
    }
}

/// The reason in the directory `volume`, if there is one.
pub(crate) fn read(volume: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(volume.join(FILE)).ok()?;
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Removes the reason that an earlier process left, so that nobody takes it for the next one's.
pub(crate) fn remove(volume: &Path) -> Result<()> {
    root_only::remove(&volume.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::{FILE, read, record, remove};
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    #[test]
    fn who_watches_for_a_reason_sees_it_come_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), None);
        let changes = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
        changes
            .add_watch(dir.path(), AddWatchFlags::IN_MOVED_TO)
            .unwrap();
        record(dir.path(), "one\ntwo");
        let events = changes.read_events().unwrap();
        assert!(
            events
                .iter()
                .any(|e| e.name.as_deref() == Some(FILE.as_ref()))
        );
        assert_eq!(read(dir.path()).as_deref(), Some("one two"));
        remove(dir.path()).unwrap();
        assert_eq!(read(dir.path()), None);
    }
}
