//! How ossfs is started for one volume: the content of its `volume.json`.

use crate::format::{self, BUILD};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version that this build writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;

/// What is needed to start ossfs for a volume again.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Start {
    /// Version of this format: 0 of builds that did not write one. A newer one is refused.
    #[serde(default)]
    version: u32,
    /// The build that wrote it.
    #[serde(default)]
    build: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) read_only: bool,
    #[serde(rename = "under")]
    pub(crate) supervisor: Supervisor,
}

impl Start {
    pub(crate) fn new(
        program: PathBuf,
        arguments: Vec<String>,
        read_only: bool,
        supervisor: Supervisor,
    ) -> Self {
        Self {
            version: VERSION,
            build: BUILD.to_owned(),
            program,
            arguments,
            read_only,
            supervisor,
        }
    }

    /// Whether ossfs takes its keys from the metadata service.
    pub(crate) fn takes_ram_role(&self) -> bool {
        let is_it = |option: &String| option == "ram_role" || option.starts_with("ram_role=");
        self.arguments.iter().any(is_it)
    }

    /// The start in `text`. An error, too, if a newer build wrote it.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        format::check(text, VERSION)?;
        serde_json::from_str(text).context("parse the start")
    }
}

/// What watches over ossfs.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Supervisor {
    /// An instance of systemd's template unit.
    Unit,
    /// A scope of systemd, made by this systemd-run.
    Scope(PathBuf),
    /// Nothing: ossfs is in a session of its own.
    #[serde(rename = "nothing")]
    Direct,
}

#[cfg(test)]
mod tests {
    use super::{Start, Supervisor, VERSION};
    use crate::format::NewerFormat;

    #[test]
    fn volume_json_of_builds_before_is_read() {
        for (json, supervisor) in [
            (r#""unit""#, Supervisor::Unit),
            (
                r#"{"scope":"/usr/bin/systemd-run"}"#,
                Supervisor::Scope("/usr/bin/systemd-run".into()),
            ),
            (r#""nothing""#, Supervisor::Direct),
        ] {
            let json = format!(
                r#"{{"program":"/usr/bin/ossfs","arguments":["docker"],"readOnly":true,"under":{json}}}"#
            );
            let arguments = vec!["docker".to_owned()];
            let start = Start::new("/usr/bin/ossfs".into(), arguments, true, supervisor);
            let written = serde_json::to_string(&start).unwrap();
            assert_eq!(Start::parse(&written).unwrap(), start);
            // The fields that both have are the same.
            assert!(written.ends_with(&json[1..]), "{written}");
            let before = Start {
                version: 0,
                build: String::new(),
                ..start
            };
            assert_eq!(Start::parse(&json).unwrap(), before);
        }
    }

    #[test]
    fn a_newer_volume_json_is_refused() {
        let json = format!(r#"{{"version":{},"build":"9.0","new":[]}}"#, VERSION + 1);
        let error = Start::parse(&json).unwrap_err();
        assert!(error.is::<NewerFormat>(), "{error:#}");
    }
}
