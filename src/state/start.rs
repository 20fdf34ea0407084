//! How ossfs is started for one volume: the content of its `volume.json`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What is needed to start ossfs for a volume again.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) read_only: bool,
    #[serde(rename = "under")]
    pub(crate) supervisor: Supervisor,
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
    use super::{Start, Supervisor};

    #[test]
    fn volume_json_is_as_builds_before_wrote_it() {
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
            let start = Start {
                program: "/usr/bin/ossfs".into(),
                arguments: vec!["docker".to_owned()],
                read_only: true,
                supervisor,
            };
            assert_eq!(serde_json::to_string(&start).unwrap(), json);
            assert_eq!(serde_json::from_str::<Start>(&json).unwrap(), start);
        }
    }
}
