//! The call `init`: kubelet makes it under a lock of the whole node, so nothing is waited for.

use crate::config::{self, Config};
use crate::kubelet::{DRIVER_DIRECTORY, DRIVER_FILE};
use crate::state::init_record::{BUILD, InitRecord};
use anyhow::{Context as _, Result};
use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::SystemTime;

/// What kube-controller-manager is called (proc_pid_comm(5) cuts names to 15 bytes). Where it runs on
/// this node outside of a container, it reads the plugin directory when kubelet does
/// (`pkg/controller/volume/attachdetach`).
const CONTROLLER_MANAGER: &str = "kube-controller";

/// Records that `init` was run, if kubelet ran it: not while an installer tries the driver out under
/// another name, not on a terminal, and not by kube-controller-manager, whose record would replace
/// kubelet's. A failure is logged and does not change the response.
pub(super) fn record() {
    let program = std::env::current_exe().unwrap_or_default();
    if !is_installed(&program) || std::io::stdin().is_terminal() {
        return;
    }
    // A broken configuration is for mount to complain of.
    let config = Config::load(std::env::var_os(config::FILE_VARIABLE)).unwrap_or_default();
    if let Err(e) = write(&config.state_dir) {
        crate::logging::start(&config.log_file, config.log_level);
        log::warn!("init: {e:#}");
    }
}

/// Whether kubelet finds a driver at `program`.
fn is_installed(program: &Path) -> bool {
    let directory = program.parent().and_then(Path::file_name);
    program.file_name() == Some(OsStr::new(DRIVER_FILE))
        && directory == Some(OsStr::new(DRIVER_DIRECTORY))
}

fn write(state: &Path) -> Result<()> {
    let pid = parent_id();
    let path = format!("/proc/{pid}/comm");
    let caller = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let caller = caller.trim_end();
    if caller == CONTROLLER_MANAGER {
        return Ok(());
    }
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let record = InitRecord {
        build: format!("oss {BUILD}"),
        pid,
        caller: caller.to_owned(),
        time: time.map_or(0, |time| time.as_secs()),
    };
    record.write(state)
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
