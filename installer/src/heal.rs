//! The driver's own words for the host. Where no systemd watches over the FUSE daemons, `heal` is
//! run regularly: it brings back those that have ended.

use crate::args::Settings;
use crate::find::Found;
use crate::host::{Host, program};
use alicloud_oss::kubelet::{DRIVER_DIRECTORY, DRIVER_FILE};
use anyhow::Result;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// Mounting again takes as long as mounting; a driver that hangs is not waited for any longer.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether the driver can heal, as far as that is known.
#[derive(Default)]
pub(crate) struct Heal {
    /// The driver has said that it does not know the word.
    unknown: bool,
}

impl Heal {
    /// Lets the driver heal its volumes, if the host needs that and the driver can.
    pub(crate) fn run(&mut self, settings: &Settings, found: &Found) {
        if self.unknown || settings.host_root.is_none() || found.host.runs_systemd() {
            return;
        }
        match call(&found.host, &found.path, &["heal"]) {
            Ok(Answer::Done(lines)) => lines.iter().for_each(|line| log::info!("heal: {line}")),
            Ok(Answer::Unknown) => {
                log::info!("this driver has no heal: volumes whose daemon ends stay dead");
                self.unknown = true;
            }
            Ok(Answer::Failed(message)) => log::warn!("heal: {message}"),
            Err(e) => log::warn!("heal: {e:#}"),
        }
    }
}

/// Lets the driver take the daemons of the old one out of kubelet's cgroup, so that the restart of
/// kubelet that its replacement needs does not end them.
pub(crate) fn adopt(settings: &Settings, found: &Found) {
    if settings.host_root.is_none() || !found.host.runs_systemd() {
        return;
    }
    match call(&found.host, &found.path, &["adopt"]) {
        Ok(Answer::Done(lines)) => lines.iter().for_each(|line| log::info!("adopt: {line}")),
        Ok(Answer::Unknown) => {}
        Ok(Answer::Failed(message)) => log::warn!("adopt: {message}"),
        Err(e) => log::warn!("adopt: {e:#}"),
    }
}

/// Lets the driver in `plugins` end what calls that were killed have left of volumes: those noted to
/// show at `targets`, where nothing is mounted, as kubelet would ask it to; and those without any.
pub(crate) fn end_leftovers(host: &Host, plugins: &Path, targets: &[String]) {
    let unmounts = targets.iter().map(|target| vec!["unmount", target]);
    for words in unmounts.chain([vec!["heal"]]) {
        match call(host, plugins, &words) {
            Ok(Answer::Done(_)) => {}
            Ok(Answer::Unknown) => log::warn!("this driver has no {}", words[0]),
            Ok(Answer::Failed(message)) => log::warn!("{}: {message}", words.join(" ")),
            Err(e) => log::warn!("{}: {e:#}", words.join(" ")),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done(Vec<String>),
    Unknown,
    Failed(String),
}

/// Runs the driver in the plugin directory `plugins` of `host` with `words`.
fn call(host: &Host, plugins: &Path, words: &[&str]) -> Result<Answer> {
    let driver = plugins.join(DRIVER_DIRECTORY).join(DRIVER_FILE);
    let driver = driver.to_string_lossy();
    let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    let output = program::run_outside(host, &driver, &words, LIMIT)?;
    Ok(parse(&output.text, output.status))
}

/// A word that the driver knows prints a line for each thing done, and its status says whether all
/// is well; one that it does not know is answered as kubelet's words are.
fn parse(text: &str, status: Option<i32>) -> Answer {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let lines = || text.lines().map(str::to_owned);
    match (answer["status"].as_str(), status) {
        (Some("Not supported"), _) => Answer::Unknown,
        (Some("Failure"), _) => Answer::Failed(answer["message"].as_str().unwrap_or("").to_owned()),
        (_, Some(0)) => Answer::Done(lines().collect()),
        _ if text.trim().is_empty() => Answer::Failed("it failed and said nothing".to_owned()),
        _ => Answer::Failed(lines().collect::<Vec<_>>().join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, parse};

    #[test]
    fn a_driver_without_the_word_is_told_from_a_failure() {
        let done = |lines: &[&str]| Answer::Done(lines.iter().map(ToString::to_string).collect());
        assert_eq!(parse("", Some(0)), done(&[]));
        assert_eq!(parse("a\nb\n", Some(0)), done(&["a", "b"]));
        assert_eq!(
            parse(r#"{"status":"Not supported"}"#, Some(0)),
            Answer::Unknown
        );
        assert_eq!(
            parse(r#"{"status":"Failure","message":"m"}"#, Some(0)),
            Answer::Failed("m".to_owned())
        );
        assert_eq!(parse("a\nb\n", Some(1)), Answer::Failed("a; b".to_owned()));
        assert_eq!(parse("a\n", None), Answer::Failed("a".to_owned()));
        assert_eq!(
            parse("", Some(1)),
            Answer::Failed("it failed and said nothing".to_owned())
        );
    }
}
