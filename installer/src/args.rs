//! The command line to `Command` and `Settings`. Every option can be set in the environment too, so
//! that an exec probe, which has the container's environment and not its arguments, agrees with
//! `run` about them.

use crate::logging::Format;
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What one run of the installer is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Run { once: bool },
    Check,
    Find,
    Uninstall { drain: bool },
}

/// What the administrator decides. Paths of the host are as the host sees them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The driver to install, a file of the image.
    pub(crate) driver: PathBuf,
    /// kubelet's plugin directory, if it shall not be found.
    pub(crate) plugin_dir: Option<PathBuf>,
    /// Where the root of the host is seen. Nothing: only what is mounted at the host's own paths is
    /// reached, the plugin directory and the state directory.
    pub(crate) host_root: Option<PathBuf>,
    /// The host's /proc.
    pub(crate) proc: PathBuf,
    /// The driver's state directory.
    pub(crate) state_dir: PathBuf,
    /// A node configuration for hosts that have none.
    pub(crate) config: Option<PathBuf>,
    /// A systemd unit that the driver starts ossfs with.
    pub(crate) unit: Option<PathBuf>,
    /// A directory of packages of ossfs.
    pub(crate) packages: Option<PathBuf>,
    /// Time from one pass to the next where nothing happens.
    pub(crate) period: Duration,
    pub(crate) log_format: Format,
}

/// The command and the settings in `args`; an error is what a person is to be shown, help included.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Command, Settings), clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let command = match matches.subcommand() {
        Some(("check", _)) => Command::Check,
        Some(("find", _)) => Command::Find,
        Some(("uninstall", words)) => Command::Uninstall {
            drain: words.get_flag("drain"),
        },
        Some(("run", words)) => Command::Run {
            once: words.get_flag("once"),
        },
        _ => Command::Run { once: false },
    };
    let words = matches
        .subcommand()
        .map_or(&matches, |(_, matches)| matches);
    Ok((command, settings(words)))
}

fn settings(words: &ArgMatches) -> Settings {
    let path = |name: &str| words.get_one::<PathBuf>(name).cloned();
    let or = |name: &str, default: &str| path(name).unwrap_or_else(|| default.into());
    Settings {
        driver: or("driver", "/oss"),
        plugin_dir: path("plugin-dir"),
        host_root: path("host-root"),
        proc: or("proc", "/proc"),
        state_dir: or("state-dir", "/run/alicloud-oss"),
        config: path("config"),
        unit: path("unit"),
        packages: path("ossfs-packages"),
        period: Duration::from_secs(words.get_one("period").copied().unwrap_or(60)),
        log_format: match words.get_one::<String>("log-format").map(String::as_str) {
            Some("json") => Format::Json,
            _ => Format::Text,
        },
    }
}

fn command() -> clap::Command {
    let path = |name: &'static str, variable: &'static str| {
        option(name, variable)
            .value_name("PATH")
            .value_parser(value_parser!(PathBuf))
    };
    let host = |name, variable| path(name, variable).value_parser(ValueParser::new(absolute));
    clap::Command::new("oss-installer")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Puts the FlexVolume driver alicloud/oss on this node and keeps it right")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(
            clap::Command::new("run")
                .about("Install the driver, repair it when it changes, until SIGTERM (the driver stays)")
                .arg(
                    Arg::new("once")
                        .long("once")
                        .action(ArgAction::SetTrue)
                        .help("Install the driver, or say why that is impossible, and end"),
                ),
        )
        .subcommand(clap::Command::new("check").about(
            "Say what is wrong on this node; status 0 if kubelet has loaded this build of the driver",
        ))
        .subcommand(
            clap::Command::new("find").about("Say which plugin directory kubelet reads, and why"),
        )
        .subcommand(
            clap::Command::new("uninstall")
                .about("Remove the driver; refused while volumes are mounted")
                .arg(
                    Arg::new("drain")
                        .long("drain")
                        .action(ArgAction::SetTrue)
                        .help("Allow no new mounts, wait for the last volume, then remove"),
                ),
        )
        .args([
            path("driver", "OSS_INSTALLER_DRIVER").help("The driver to install [/oss]"),
            host("plugin-dir", "OSS_INSTALLER_PLUGIN_DIR")
                .help("kubelet's plugin directory on the host [kubelet is asked]"),
            path("host-root", "OSS_INSTALLER_HOST_ROOT")
                .help("The host's root: /proc/1/root with hostPID, / on the host itself [not reached]"),
            path("proc", "OSS_INSTALLER_PROC").help("The host's /proc [/proc]"),
            host("state-dir", "OSS_INSTALLER_STATE_DIR")
                .help("The driver's state directory on the host [/run/alicloud-oss]"),
            path("config", "OSS_INSTALLER_CONFIG")
                .help("A file for the host's /etc/alicloud-oss/config.json, if that is missing"),
            path("unit", "OSS_INSTALLER_UNIT")
                .help("A file for the host's /etc/systemd/system, where systemd runs"),
            path("ossfs-packages", "OSS_INSTALLER_OSSFS_PACKAGES")
                .help("A directory of .rpm and .deb files: ossfs is installed where missing or older"),
            option("period", "OSS_INSTALLER_PERIOD")
                .value_name("SECONDS")
                .value_parser(value_parser!(u64).range(1..=86_400))
                .help("Time between two passes where nothing happens [60]"),
            option("log-format", "OSS_INSTALLER_LOG_FORMAT")
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .help("How lines on stderr look [text]"),
        ])
}

/// An option of every subcommand, in the environment as `variable`.
fn option(name: &'static str, variable: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .env(variable)
        .hide_env(true)
        .global(true)
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    match Path::new(text).is_absolute() {
        true => Ok(text.into()),
        false => Err("an absolute path is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, parse};
    use std::time::Duration;

    fn args(words: &str) -> Result<(Command, super::Settings), clap::Error> {
        parse(
            std::iter::once("oss-installer")
                .chain(words.split_whitespace())
                .map(Into::into),
        )
    }

    #[test]
    fn options_come_before_or_behind_the_word() {
        for words in [
            "--plugin-dir /x --period 5 uninstall --drain",
            "uninstall --drain --plugin-dir=/x --period=5",
        ] {
            let (command, settings) = args(words).unwrap();
            assert_eq!(command, Command::Uninstall { drain: true }, "{words}");
            assert_eq!(settings.plugin_dir.unwrap().to_str(), Some("/x"), "{words}");
            assert_eq!(settings.period, Duration::from_secs(5), "{words}");
        }
    }

    #[test]
    fn run_goes_on_unless_told_otherwise() {
        for (words, once) in [("run", false), ("run --once", true)] {
            assert_eq!(args(words).unwrap().0, Command::Run { once }, "{words}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for words in [
            "",
            "install",
            "run --plugin-dir x",
            "run --period 0",
            "check --drain",
            "check --once",
            "run --log-format xml",
        ] {
            assert!(args(words).is_err(), "{words}");
        }
    }
}
