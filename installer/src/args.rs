//! The command line to `Command` and `Settings`, with the default of each option. Every option can be
//! set in the environment too, so that an exec probe, which has the container's environment and not
//! its arguments, agrees with `run` about them.

use crate::logging::Format;
use crate::packages::dependencies::Dependencies;
use clap::builder::TypedValueParser as _;
use clap::{Args, Parser, Subcommand, value_parser};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Puts the FlexVolume driver alicloud/oss on this node and repairs it when it changes
#[derive(Parser)]
#[command(
    name = "oss-installer",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = false
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

/// What one run of the installer is asked to do.
#[derive(Subcommand, Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Install the driver, repair it when it changes, until SIGTERM (the driver stays)
    Run {
        /// Install the driver, or log why that is impossible, and exit
        #[arg(long)]
        once: bool,
    },
    /// Install ossfs from --ossfs-packages, or log why that is impossible, and exit
    InstallOssfs,
    /// Copy ossfs of this image, with all that it loads, to a tree of its own in DIRECTORY
    CopyOssfs {
        /// Where the trees are, one for each version
        #[arg(value_name = "DIRECTORY", value_parser = absolute)]
        directory: PathBuf,
        /// The program: a name, or a path
        #[arg(long, value_name = "NAME", default_value = "ossfs")]
        program: String,
    },
    /// Print what is wrong on this node; status 0 if kubelet has loaded this build of the driver
    Check,
    /// Do nothing until SIGTERM: for a Pod that is to stay after its work is done
    Wait,
    /// Print which plugin directory kubelet reads, and how that is known
    Find,
    /// Remove the driver; refused while volumes are mounted
    Uninstall {
        /// Allow no new mounts, wait for the last volume, then remove
        #[arg(long)]
        drain: bool,
    },
}

/// What the administrator decides. Paths of the host are as the host sees them.
#[derive(Args, Debug, Clone)]
pub(crate) struct Settings {
    /// The driver to install
    #[arg(long, env = "OSS_INSTALLER_DRIVER", hide_env = true, global = true)]
    #[arg(value_name = "PATH", default_value = "/oss")]
    pub(crate) driver: PathBuf,
    /// kubelet's plugin directory on the host [default: that of the running kubelet]
    #[arg(long, env = "OSS_INSTALLER_PLUGIN_DIR", hide_env = true, global = true)]
    #[arg(value_name = "PATH", value_parser = absolute)]
    pub(crate) plugin_dir: Option<PathBuf>,
    // Without it, only what is mounted at the host's own paths is reached: the plugin directory and
    // the state directory.
    /// The host's root: /proc/1/root with hostPID, / on the host itself [default: not reached]
    #[arg(long, env = "OSS_INSTALLER_HOST_ROOT", hide_env = true, global = true)]
    #[arg(value_name = "PATH")]
    pub(crate) host_root: Option<PathBuf>,
    /// The host's /proc
    #[arg(long, env = "OSS_INSTALLER_PROC", hide_env = true, global = true)]
    #[arg(value_name = "PATH", default_value = "/proc")]
    pub(crate) proc: PathBuf,
    /// The driver's state directory on the host
    #[arg(long, env = "OSS_INSTALLER_STATE_DIR", hide_env = true, global = true)]
    #[arg(value_name = "PATH", value_parser = absolute, default_value = "/run/alicloud-oss")]
    pub(crate) state_dir: PathBuf,
    /// A file for the host's /etc/alicloud-oss/config.json, if that is missing
    #[arg(long, env = "OSS_INSTALLER_CONFIG", hide_env = true, global = true)]
    #[arg(value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// A unit file for the host's /etc/systemd/system, where systemd runs
    #[arg(long, env = "OSS_INSTALLER_UNIT", hide_env = true, global = true)]
    #[arg(value_name = "PATH")]
    pub(crate) unit: Option<PathBuf>,
    /// A directory of .rpm and .deb files: ossfs is installed where missing or older
    #[arg(
        long = "ossfs-packages",
        env = "OSS_INSTALLER_OSSFS_PACKAGES",
        hide_env = true
    )]
    #[arg(value_name = "PATH", global = true)]
    pub(crate) packages: Option<PathBuf>,
    /// Where what ossfs needs comes from: it is on the node, or in the node's own repositories
    #[arg(
        long = "ossfs-dependencies",
        env = "OSS_INSTALLER_OSSFS_DEPENDENCIES",
        hide_env = true
    )]
    #[arg(value_name = "WHERE", global = true, value_enum, default_value_t = Dependencies::Installed)]
    pub(crate) dependencies: Dependencies,
    /// Time between two checks of the node while nothing happens
    #[arg(long, env = "OSS_INSTALLER_PERIOD", hide_env = true, global = true)]
    #[arg(value_name = "SECONDS", default_value = "60")]
    #[arg(value_parser = value_parser!(u64).range(1..=86_400).map(Duration::from_secs))]
    pub(crate) period: Duration,
    /// How long after SIGTERM a step that is under way may go on
    #[arg(long, env = "OSS_INSTALLER_GRACE", hide_env = true, global = true)]
    #[arg(value_name = "SECONDS", default_value = "1")]
    #[arg(value_parser = value_parser!(u64).range(1..=3600).map(Duration::from_secs))]
    pub(crate) grace: Duration,
    /// The format of the log on stderr
    #[arg(long, env = "OSS_INSTALLER_LOG_FORMAT", hide_env = true, global = true)]
    #[arg(value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) log_format: Format,
}

/// The command and the settings in `args`. An error is a text for a person, the text of `--help`
/// and `--version` among them.
pub(crate) fn parse(
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Command, Settings), clap::Error> {
    let line = CommandLine::try_parse_from(args)?;
    Ok((line.command, line.settings))
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    match Path::new(text).is_absolute() {
        true => Ok(text.into()),
        false => Err("an absolute path is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, CommandLine, Settings, parse};
    use crate::logging::Format;
    use crate::packages::dependencies::Dependencies;
    use alicloud_oss::config::Config;
    use clap::CommandFactory as _;
    use std::path::Path;
    use std::time::Duration;

    fn args(line: &str) -> Result<(Command, Settings), clap::Error> {
        parse(
            std::iter::once("oss-installer")
                .chain(line.split_whitespace())
                .map(Into::into),
        )
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_the_image_and_of_the_driver() {
        let (_, settings) = args("check").unwrap();
        assert_eq!(settings.driver, Path::new("/oss"));
        assert_eq!(settings.proc, Path::new("/proc"));
        assert_eq!(settings.state_dir, Config::default().state_dir);
        assert_eq!(settings.period, Duration::from_secs(60));
        assert_eq!(settings.grace, Duration::from_secs(1));
        assert_eq!(settings.dependencies, Dependencies::Installed);
        assert_eq!(settings.log_format, Format::Text);
        let (dir, root) = (settings.plugin_dir, settings.host_root);
        let files = (settings.config, settings.unit, settings.packages);
        assert_eq!((dir, root, files), (None, None, (None, None, None)));
    }

    #[test]
    fn options_come_before_or_after_the_command() {
        for line in [
            "--plugin-dir /x --period 5 uninstall --drain",
            "uninstall --drain --plugin-dir=/x --period=5",
        ] {
            let (command, settings) = args(line).unwrap();
            assert_eq!(command, Command::Uninstall { drain: true }, "{line}");
            assert_eq!(settings.plugin_dir.unwrap().to_str(), Some("/x"), "{line}");
            assert_eq!(settings.period, Duration::from_secs(5), "{line}");
        }
    }

    #[test]
    fn run_goes_on_unless_told_otherwise() {
        for (line, once) in [("run", false), ("run --once", true)] {
            assert_eq!(args(line).unwrap().0, Command::Run { once }, "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (line, expected) in [
            ("", "requires a subcommand"),
            ("install", "unrecognized subcommand 'install'"),
            ("run --plugin-dir x", "an absolute path is expected"),
            ("run --state-dir x", "an absolute path is expected"),
            ("run --period 0", "0 is not in 1..=86400"),
            ("check --drain", "unexpected argument '--drain'"),
            ("check --once", "unexpected argument '--once'"),
            ("run --log-format xml", "[possible values: text, json]"),
        ] {
            let error = args(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
    }
}
