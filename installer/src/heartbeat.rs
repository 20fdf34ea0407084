//! The record by which `check` and `uninstall` know that `run` is at work: a file in the driver's state
//! directory. `run` writes until when it will write again; a process that was stopped, or hangs, does
//! not. What `run` has found that `check` cannot see by itself is in it, too.

use crate::args::Settings;
use crate::finding::Finding;
use crate::host::Host;
use alicloud_oss::state::layout::{INCOMPLETE, INSTALLER_RECORD};
use alicloud_oss::sys::boot_clock;
use alicloud_oss::sys::process::ProcessId;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much longer than it has said a step may take on a node that is busy.
const SLACK: Duration = Duration::from_secs(30);
/// The most warnings that a record has.
const MAX_WARNINGS: usize = 16;

/// What is recorded.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The process, as `ProcessId::render` writes it.
    process: String,
    /// The time of the boot clock by which it writes again, in seconds.
    until: u64,
    /// What it warns of.
    #[serde(default)]
    warnings: Vec<String>,
}

/// The record of this process, removed when it is dropped.
pub(crate) struct Heartbeat {
    place: Place,
    record: Record,
    failed: bool,
}

impl Heartbeat {
    /// Begins to record that this process is at work on the host of `settings`.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        Ok(Self {
            place: Place::of(settings),
            record: Record {
                process: ProcessId::own()?.render(),
                until: 0,
                warnings: Vec::new(),
            },
            failed: false,
        })
    }

    /// Where the record is.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// What `check` repeats from the next beat on.
    pub(crate) fn warn(&mut self, warnings: impl Iterator<Item = String>) {
        self.record.warnings = warnings.take(MAX_WARNINGS).collect();
    }

    /// Records that what is begun now ends within `limit`. A failure is logged once.
    pub(crate) fn beat(&mut self, limit: Duration) {
        self.record.until = (boot_clock::now() + limit + SLACK).as_secs();
        let written = self
            .place
            .path()
            .and_then(|path| write(&path, &self.record));
        match &written {
            Err(e) if !self.failed => log::warn!("record that this process is at work: {e:#}"),
            _ => {}
        }
        self.failed = written.is_err();
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.place.remove();
    }
}

/// The file of the record on the host, which may not be reached yet.
#[derive(Clone)]
pub(crate) struct Place {
    host: Host,
    file: PathBuf,
}

impl Place {
    fn of(settings: &Settings) -> Self {
        let root = settings.host_root.as_deref().unwrap_or(Path::new("/"));
        Self {
            host: Host::new(root),
            file: settings.state_dir.join(INSTALLER_RECORD),
        }
    }

    fn path(&self) -> Result<PathBuf> {
        let located = self.host.locate(&self.file);
        located.with_context(|| format!("resolve {}", self.file.display()))
    }

    /// Removes the record: its process ends as it was asked to.
    pub(crate) fn remove(&self) {
        // If it stays, its process has ended, which is seen.
        let _ = self.path().map(std::fs::remove_file);
    }
}

/// What there is to say of the record on the host of `settings`: whether `run` is at work, and what it
/// warns of.
pub(crate) fn findings(settings: &Settings) -> Vec<Finding> {
    let record = match Place::of(settings).path().and_then(|path| read(&path)) {
        Ok(record) => record,
        Err(e) => return vec![Finding::warning(format!("{e:#}"))],
    };
    let runs = record.as_ref().is_some_and(is_running);
    judge(record.as_ref(), runs, boot_clock::now())
}

/// The process that keeps the driver installed on this node now, if one does that can be seen from here.
pub(crate) fn running(settings: &Settings) -> Result<Option<i32>> {
    let record = read(&Place::of(settings).path()?)?.filter(is_running);
    let id = record.and_then(|record| ProcessId::parse(&record.process));
    Ok(id.map(|id| id.pid()))
}

fn judge(record: Option<&Record>, runs: bool, now: Duration) -> Vec<Finding> {
    let Some(record) = record else {
        return vec![Finding::warning(
            "oss-installer run is not at work on this node, so nothing repairs the driver: start its \
             DaemonSet or alicloud-oss-installer.service",
        )];
    };
    let late = now.saturating_sub(Duration::from_secs(record.until));
    if !runs {
        return vec![Finding::problem(
            "oss-installer run was killed, so nothing repairs the driver: see the log of its container, \
             or systemctl status alicloud-oss-installer",
        )];
    }
    let mut findings: Vec<Finding> = record.warnings.iter().map(Finding::warning).collect();
    if !late.is_zero() {
        findings.push(Finding::problem(format!(
            "oss-installer run is stopped or hangs: it is {} s late: see its last log line, and end its \
             process, so that it is started again",
            late.as_secs()
        )));
    }
    findings
}

fn is_running(record: &Record) -> bool {
    ProcessId::parse(&record.process).is_some_and(|id| matches!(id.open(), Ok(Some(_))))
}

fn read(path: &Path) -> Result<Option<Record>> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("read {}", path.display()))
}

/// Replaces the record in one step. It is not flushed to a disk: after a boot it means nothing.
fn write(path: &Path, record: &Record) -> Result<()> {
    let text = serde_json::to_vec(record)?;
    if let Some(directory) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    let new = path.with_extension(INCOMPLETE);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(&text))
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Record, judge, read, write};
    use crate::finding::Severity;
    use std::time::Duration;

    fn record() -> Record {
        Record {
            process: "7 4711 boot".to_owned(),
            until: 100,
            warnings: vec!["w".to_owned()],
        }
    }

    #[test]
    fn a_process_that_is_late_or_gone_is_a_problem_and_none_at_all_a_warning() {
        let at = Duration::from_secs;
        for (what, record, runs, now, expected) in [
            (
                "at work",
                Some(record()),
                true,
                at(100),
                vec![(Severity::Warning, "w")],
            ),
            (
                "stopped",
                Some(record()),
                true,
                at(103),
                vec![
                    (Severity::Warning, "w"),
                    (
                        Severity::Problem,
                        "oss-installer run is stopped or hangs: it is 3 s late",
                    ),
                ],
            ),
            (
                "killed",
                Some(record()),
                false,
                at(50),
                vec![(Severity::Problem, "oss-installer run was killed")],
            ),
            (
                "none",
                None,
                false,
                at(50),
                vec![(Severity::Warning, "oss-installer run is not at work")],
            ),
        ] {
            let found = judge(record.as_ref(), runs, now);
            assert_eq!(found.len(), expected.len(), "{what}: {found:?}");
            for (found, (severity, text)) in found.iter().zip(expected) {
                assert_eq!(found.severity, severity, "{what}");
                assert!(found.text.starts_with(text), "{what}: {found}");
            }
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/installer.json");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, &record()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(record()));
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).is_err());
    }
}
