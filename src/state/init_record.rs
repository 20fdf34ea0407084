//! The record of `init`: a file in the state directory that says which build of the driver kubelet
//! has loaded. The installer's readiness is made of it.

use crate::format;
use crate::state::directory::StateDirectory;
use crate::state::layout::INIT_RECORD;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What this build is called, different for any two that differ in their sources.
pub const BUILD: &str = format::BUILD;

/// One run of `init`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct InitRecord {
    /// The text of `oss --version`.
    pub build: String,
    /// The process that ran it, and its name (`/proc/PID/comm`).
    pub pid: u32,
    pub caller: String,
    /// When, in seconds since 1970.
    pub time: u64,
}

impl InitRecord {
    /// Leaves the record in the state directory at `state`, which is made if it is missing.
    pub(crate) fn write(&self, state: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).context("write the init record")?;
        StateDirectory::write_file(state, INIT_RECORD, &json)
    }

    /// The record in the file at `path`; `None` if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::InitRecord;

    #[test]
    fn the_record_is_as_builds_before_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let record = InitRecord {
            build: "oss 0.1.0 (00)".to_owned(),
            pid: 7,
            caller: "kubelet".to_owned(),
            time: 1_700_000_000,
        };
        record.write(&state).unwrap();
        let path = state.join("init.json");
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            r#"{"build":"oss 0.1.0 (00)","pid":7,"caller":"kubelet","time":1700000000}"#
        );
        assert_eq!(InitRecord::read(&path).unwrap(), Some(record));
        assert_eq!(InitRecord::read(&state.join("none")).unwrap(), None);
        std::fs::write(&path, "{").unwrap();
        assert!(InitRecord::read(&path).is_err());
    }
}
