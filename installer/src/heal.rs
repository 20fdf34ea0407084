//! The driver's commands that the installer runs on the host. `heal` is run regularly: it has volumes
//! served again whose process was stopped or killed.

use crate::args::Settings;
use crate::find::Found;
use crate::finding::Finding;
use crate::host::{Host, program};
use crate::{node_config, supervision};
use alicloud_oss::kubelet::{DRIVER_DIRECTORY, DRIVER_FILE};
use alicloud_oss::text::list;
use anyhow::Result;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// Mounting again takes as long as mounting; a driver that hangs is killed after that.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Whether the driver can heal, as far as is known.
#[derive(Default)]
pub(crate) struct Heal {
    /// The driver has answered that it does not support the command.
    not_supported: bool,
}

impl Heal {
    /// Has the driver heal its volumes, if it can.
    /// A failure is found: a volume may be its tenant's fault.
    pub(crate) fn run(&mut self, settings: &Settings, found: &Found) -> Option<Finding> {
        if self.not_supported || settings.host_root.is_none() {
            return None;
        }
        match call(&found.host, &found.path, &["heal"]) {
            Ok(Answer::Done(lines)) => lines.iter().for_each(|line| log::info!("heal: {line}")),
            Ok(Answer::NotSupported) => {
                log::info!(
                    "this driver has no command heal: volumes that were stopped are not served again"
                );
                self.not_supported = true;
            }
            Ok(Answer::Failed(message)) => {
                return Some(Finding::warning(format!("heal: {message}")));
            }
            Err(e) => return Some(Finding::warning(format!("heal: {e:#}"))),
        }
        None
    }
}

/// Has the driver move the daemons of the old one out of kubelet's cgroup, so that the restart of
/// kubelet that its replacement needs does not end them.
pub(crate) fn adopt(settings: &Settings, found: &Found) {
    let launcher = node_config::read(&found.host).ok().flatten();
    let launcher = launcher.unwrap_or_default().launcher;
    if settings.host_root.is_none() || !supervision::is_systemd(found, launcher) {
        return;
    }
    match call(&found.host, &found.path, &["adopt"]) {
        Ok(Answer::Done(lines)) => lines.iter().for_each(|line| log::info!("adopt: {line}")),
        Ok(Answer::NotSupported) => {}
        Ok(Answer::Failed(message)) => log::warn!("adopt: {message}"),
        Err(e) => log::warn!("adopt: {e:#}"),
    }
}

/// Has the driver in `plugins` release what calls that were killed have left of volumes: those with a
/// record of `targets`, where nothing is mounted, by the unmount call of kubelet; and those without.
pub(crate) fn end_leftovers(host: &Host, plugins: &Path, targets: &[String]) {
    let unmounts = targets.iter().map(|target| vec!["unmount", target]);
    for args in unmounts.chain([vec!["heal"]]) {
        match call(host, plugins, &args) {
            Ok(Answer::Done(_)) => {}
            Ok(Answer::NotSupported) => log::warn!("this driver has no command {}", args[0]),
            Ok(Answer::Failed(message)) => log::warn!("{}: {message}", args.join(" ")),
            Err(e) => log::warn!("{}: {e:#}", args.join(" ")),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done(Vec<String>),
    NotSupported,
    Failed(String),
}

/// Runs the driver in the plugin directory `plugins` of `host` with `args`.
fn call(host: &Host, plugins: &Path, args: &[&str]) -> Result<Answer> {
    let driver = plugins.join(DRIVER_DIRECTORY).join(DRIVER_FILE);
    let driver = driver.to_string_lossy();
    let args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
    let output = program::run_outside(host, &driver, &args, LIMIT)?;
    Ok(parse(&output.text, output.status))
}

/// A command that the driver supports prints a line for each thing done, and its status tells success;
/// one that it does not support is answered as a call of kubelet's.
fn parse(text: &str, status: Option<i32>) -> Answer {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let lines = || text.lines().map(str::to_owned);
    match (answer["status"].as_str(), status) {
        (Some("Not supported"), _) => Answer::NotSupported,
        (Some("Failure"), _) => Answer::Failed(answer["message"].as_str().unwrap_or("").to_owned()),
        (_, Some(0)) => Answer::Done(lines().collect()),
        _ if text.trim().is_empty() => Answer::Failed("it failed without output".to_owned()),
        _ => Answer::Failed(list(&lines().collect::<Vec<_>>(), "; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, parse};

    #[test]
    fn a_command_that_is_not_supported_is_told_from_a_failure() {
        let done = |lines: &[&str]| Answer::Done(lines.iter().map(ToString::to_string).collect());
        assert_eq!(parse("", Some(0)), done(&[]));
        assert_eq!(parse("a\nb\n", Some(0)), done(&["a", "b"]));
        assert_eq!(
            parse(r#"{"status":"Not supported"}"#, Some(0)),
            Answer::NotSupported
        );
        assert_eq!(
            parse(r#"{"status":"Failure","message":"m"}"#, Some(0)),
            Answer::Failed("m".to_owned())
        );
        assert_eq!(parse("a\nb\n", Some(1)), Answer::Failed("a; b".to_owned()));
        assert_eq!(parse("a\n", None), Answer::Failed("a".to_owned()));
        assert_eq!(
            parse("", Some(1)),
            Answer::Failed("it failed without output".to_owned())
        );
    }
}
