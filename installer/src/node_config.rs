//! The driver's node configuration, from the host's file to the driver's own type.

use crate::host::Host;
use alicloud_oss::config::{Config, DEFAULT_FILE};
use alicloud_oss::sys::root_only::read_trusted;
use anyhow::{Context as _, Result};
use std::io::ErrorKind;
use std::path::Path;

/// The configuration of the driver on `host`; `None` where there is no file, and the driver uses its
/// defaults. An error is what the driver would refuse, too: a key that it does not know, or a file
/// that others may change.
pub(crate) fn read(host: &Host) -> Result<Option<Config>> {
    let text = host
        .locate(Path::new(DEFAULT_FILE))
        .and_then(|file| read_trusted(&file));
    match text {
        Ok(text) => Config::parse(&text).map(Some),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
    .with_context(|| format!("node configuration {DEFAULT_FILE}"))
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::host::Host;
    use std::fs::{Permissions, create_dir_all, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_configuration_is_read_as_the_driver_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::new(dir.path());
        assert!(read(&host).unwrap().is_none());
        create_dir_all(dir.path().join("etc/alicloud-oss")).unwrap();
        let file = dir.path().join("etc/alicloud-oss/config.json");
        let with = |text: &str, mode| {
            write(&file, text).unwrap();
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            read(&host)
                .map(|config| config.expect("the file is there"))
                .map_err(|e| format!("{e:#}"))
        };
        let config = with(r#"{"ossfs":"/opt/ossfs","stateDir":"/run/x"}"#, 0o644).unwrap();
        assert_eq!(config.ossfs, "/opt/ossfs");
        assert_eq!(config.state_dir.to_str(), Some("/run/x"));
        for (text, mode, expected) in [
            (
                r#"{"ossf":"x"}"#,
                0o644,
                "node configuration /etc/alicloud-oss/config.json: key \"ossf\": unknown field",
            ),
            (
                "[]",
                0o644,
                "node configuration /etc/alicloud-oss/config.json: it begins with an array",
            ),
            (
                "{}",
                0o666,
                "node configuration /etc/alicloud-oss/config.json: it is world-writable",
            ),
        ] {
            let error = with(text, mode).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
