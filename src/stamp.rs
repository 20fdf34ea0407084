//! The stamp of `init`: a file in the state directory that says which build of the driver kubelet
//! has loaded. The installer's readiness is made of it.

use crate::config::{self, Config};
use crate::volume::StateDirectory;
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::SystemTime;

/// What this build is called, different for any two that differ in their sources.
pub(crate) const BUILD: &str = env!("OSS_BUILD");
/// kubelet's name for the driver's directory and file (`pkg/volume/flexvolume/probe.go`).
const DIRECTORY: &str = "alicloud~oss";
const FILE: &str = "oss";

/// One run of `init`.
#[derive(Serialize)]
struct Stamp {
    /// The text of `oss --version`.
    build: String,
    /// The process that ran it, and its name.
    pid: u32,
    caller: String,
    /// When, in seconds since 1970.
    time: u64,
}

/// Notes that `init` was run, if that was kubelet's doing: not while an installer tries the driver
/// out under another name, and not on a person's terminal. What goes wrong is logged and changes
/// nothing about the answer.
pub(crate) fn leave() {
    let program = std::env::current_exe().unwrap_or_default();
    if !is_installed(&program) || std::io::stdin().is_terminal() {
        return;
    }
    // A broken configuration is for mount to complain of.
    let config = Config::load(std::env::var_os(config::FILE_VARIABLE)).unwrap_or_default();
    if let Err(e) = write(&config) {
        crate::logging::start(&config.log_file, config.log_level);
        log::warn!("init: {e:#}");
    }
}

/// Whether kubelet finds a driver at `program`.
fn is_installed(program: &Path) -> bool {
    let directory = program.parent().and_then(Path::file_name);
    program.file_name() == Some(OsStr::new(FILE)) && directory == Some(OsStr::new(DIRECTORY))
}

fn write(config: &Config) -> Result<()> {
    let pid = parent_id();
    let path = format!("/proc/{pid}/comm");
    let caller = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let stamp = Stamp {
        build: format!("oss {BUILD}"),
        pid,
        caller: caller.trim_end().to_owned(),
        time: time.map_or(0, |time| time.as_secs()),
    };
    StateDirectory::stamp(&config.state_dir, &serde_json::to_vec(&stamp)?)
}

#[cfg(test)]
mod tests {
    use super::is_installed;
    use std::path::Path;

    #[test]
    fn only_kubelets_names_are_those_of_an_installed_driver() {
        for (path, expected) in [
            ("/plugins/alicloud~oss/oss", true),
            ("/plugins/.alicloud~oss/oss", false),
            ("/plugins/alicloud~oss/.oss.new", false),
            ("/plugins/alicloud~oss/oss (deleted)", false),
            ("/usr/bin/oss", false),
            ("/oss", false),
            ("", false),
        ] {
            assert_eq!(is_installed(Path::new(path)), expected, "{path}");
        }
    }
}
