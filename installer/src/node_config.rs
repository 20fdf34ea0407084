//! The driver's node configuration: from the host's file to the driver's own type, and from the file
//! that the installer was given to the host's. A file that the installer wrote is replaced when the
//! given one changes; one that an administrator has written or edited never is. The installer knows its
//! own by a checksum beside it, in the format of sha256sum(1).

use crate::args::Settings;
use crate::checksum::checksum;
use crate::finding::Finding;
use crate::host::Host;
use crate::host::files::{remove as remove_file, remove_empty, remove_new, write_atomic};
use alicloud_oss::config::{Config, DEFAULT_FILE};
use alicloud_oss::sys::root_only::read_trusted;
use anyhow::{Context as _, Result};
use std::io::ErrorKind;
use std::path::Path;

/// The checksum of the configuration that the installer wrote last.
const RECORD: &str = "/etc/alicloud-oss/.config.json.sha256";

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

/// What is to be done with the host's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Nothing,
    /// The file is as it was given, and not yet known as the installer's.
    Record,
    /// There is none, or it is the installer's and another one is given.
    Write,
    /// It is the installer's, and none is given any more.
    Remove,
    /// It is somebody else's, and says something else than the one that is given.
    Edited,
}

/// The step for a host's file with the checksum `present`, if there is one, where the installer wrote
/// `written` last and `given` is given now.
fn step(present: Option<&str>, written: Option<&str>, given: Option<&str>) -> Step {
    match (present, given) {
        (None, None) => Step::Nothing,
        (None, Some(_)) => Step::Write,
        (Some(present), Some(given)) if present == given => match written == Some(given) {
            true => Step::Nothing,
            false => Step::Record,
        },
        (Some(present), given) if written == Some(present) => match given {
            Some(_) => Step::Write,
            None => Step::Remove,
        },
        (Some(_), Some(_)) => Step::Edited,
        (Some(_), None) => Step::Nothing,
    }
}

/// Has the host's configuration be the one that is given, unless it is an administrator's. What keeps
/// it from that is found; then the file that was there is still there.
pub(crate) fn install(settings: &Settings, host: &Host) -> Vec<Finding> {
    let done = given(settings).and_then(|given| apply(host, given.as_deref()));
    match done {
        Ok(found) => found.into_iter().collect(),
        Err(e) => vec![Finding::problem(format!("{e:#}"))],
    }
}

/// What `install` finds, with nothing changed on the host.
pub(crate) fn check(settings: &Settings, host: &Host) -> Option<Finding> {
    let found = given(settings).and_then(|given| {
        let given = given.as_deref().map(checksum);
        let edited = step_on(host, given.as_deref())? == Step::Edited;
        Ok(edited.then(edited_finding))
    });
    found.unwrap_or_else(|e| Some(Finding::problem(format!("{e:#}"))))
}

/// The text of the configuration that is given. One that the driver would refuse is an error.
fn given(settings: &Settings) -> Result<Option<String>> {
    let Some(source) = &settings.config else {
        return Ok(None);
    };
    let read = || {
        let text = std::fs::read_to_string(source)?;
        Config::parse(&text)?;
        Ok(Some(text))
    };
    read().map_err(|e: anyhow::Error| {
        e.context(format!(
            "the new node configuration {} is refused, and {DEFAULT_FILE} stays as it is",
            source.display()
        ))
    })
}

fn apply(host: &Host, given: Option<&str>) -> Result<Option<Finding>> {
    let file = Path::new(DEFAULT_FILE);
    let sum = given.map(checksum);
    let step = step_on(host, sum.as_deref())?;
    match (step, given, sum) {
        (Step::Write, Some(text), Some(sum)) => {
            // Killed before the record is written: the next pass finds the file as it was given.
            let was = host.metadata(file).is_ok();
            write_atomic(host, file, text.as_bytes(), 0o644, 0o755)?;
            record(host, &sum)?;
            log::info!(
                "{} {DEFAULT_FILE}",
                if was { "updated" } else { "installed" }
            );
        }
        (Step::Record, _, Some(sum)) => record(host, &sum)?,
        (Step::Remove, ..) => {
            take_away(host)?;
            log::info!("removed {DEFAULT_FILE}: none is given any more");
        }
        (Step::Edited, ..) => return Ok(Some(edited_finding())),
        _ => {}
    }
    Ok(None)
}

fn step_on(host: &Host, given: Option<&str>) -> Result<Step> {
    let read = |path: &str| match host.read(Path::new(path)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {path}")),
    };
    let present = read(DEFAULT_FILE)?.map(|text| checksum(&text));
    let written = read(RECORD)?.unwrap_or_default();
    let written = written.split_whitespace().next();
    Ok(step(present.as_deref(), written, given))
}

fn edited_finding() -> Finding {
    Finding::warning(format!(
        "{DEFAULT_FILE} is not the one that the installer wrote, or was edited since, so the \
         configuration given by --config is not used on this node: remove the file to have it used"
    ))
}

fn record(host: &Host, sum: &str) -> Result<()> {
    let line = format!("{sum}  config.json\n");
    write_atomic(host, Path::new(RECORD), line.as_bytes(), 0o644, 0o755)
}

/// Removes the host's configuration if it is the installer's, or the one that is given; another one
/// stays, which is logged.
pub(crate) fn remove(settings: &Settings, host: &Host) -> Result<()> {
    let file = Path::new(DEFAULT_FILE);
    let given = settings.config.as_deref().map(std::fs::read_to_string);
    let given = given.and_then(Result::ok);
    let is_known = settings.config.is_some() || host.metadata(Path::new(RECORD)).is_ok();
    remove_new(host, file)?;
    remove_new(host, Path::new(RECORD))?;
    match step_on(host, given.as_deref().map(checksum).as_deref())? {
        // The one that is given, or the installer's.
        Step::Record | Step::Remove | Step::Write => take_away(host)?,
        Step::Nothing if given.is_some() => take_away(host)?,
        Step::Nothing | Step::Edited => {
            if is_known && host.metadata(file).is_ok() {
                log::info!("{DEFAULT_FILE} stays: it has been changed since it was installed");
            }
            remove_file(host, Path::new(RECORD))?;
        }
    }
    remove_empty(host, file.parent());
    Ok(())
}

fn take_away(host: &Host) -> Result<()> {
    remove_file(host, Path::new(DEFAULT_FILE))?;
    remove_file(host, Path::new(RECORD))?;
    remove_empty(host, Path::new(DEFAULT_FILE).parent());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Step, read, step};
    use crate::host::Host;
    use std::fs::{Permissions, create_dir_all, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_file_that_the_installer_wrote_is_replaced() {
        for (what, present, written, given, expected) in [
            ("nothing anywhere", None, None, None, Step::Nothing),
            ("a first one", None, None, Some("new"), Step::Write),
            (
                "one that was removed by hand",
                None,
                Some("old"),
                Some("new"),
                Step::Write,
            ),
            (
                "the same",
                Some("new"),
                Some("new"),
                Some("new"),
                Step::Nothing,
            ),
            (
                "the same, of a build before",
                Some("new"),
                None,
                Some("new"),
                Step::Record,
            ),
            (
                "killed before the record",
                Some("new"),
                Some("old"),
                Some("new"),
                Step::Record,
            ),
            (
                "a change",
                Some("old"),
                Some("old"),
                Some("new"),
                Step::Write,
            ),
            (
                "none any more",
                Some("old"),
                Some("old"),
                None,
                Step::Remove,
            ),
            (
                "edited",
                Some("mine"),
                Some("old"),
                Some("new"),
                Step::Edited,
            ),
            (
                "an administrator's",
                Some("mine"),
                None,
                Some("new"),
                Step::Edited,
            ),
            (
                "an administrator's alone",
                Some("mine"),
                None,
                None,
                Step::Nothing,
            ),
            (
                "edited, and none any more",
                Some("mine"),
                Some("old"),
                None,
                Step::Nothing,
            ),
        ] {
            assert_eq!(step(present, written, given), expected, "{what}");
        }
    }

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
