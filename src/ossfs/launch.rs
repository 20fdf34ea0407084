//! Starting the process of a volume, `oss serve`: without a shell, in a session and an environment of
//! its own, and where systemd runs as a unit outside kubelet's cgroup, so that a restart of kubelet
//! does not end it.

use crate::config::{FILE_VARIABLE, Launcher};
use crate::ossfs::systemd;
use crate::serve;
use crate::state::start::{Start, Supervisor};
use crate::state::volume::Volume;
use crate::sys::command::{PATH, spawning};
use crate::sys::helper;
use crate::sys::lock::Lock;
use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup, setsid};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The absolute path of the program `name`, looked up in the standard directories.
pub(crate) fn find_program(name: &str) -> Result<PathBuf> {
    which::which_in(name, Some(PATH), "/").map_err(|_| {
        anyhow::anyhow!(
            "{name:?} is not an executable file of this node (looked in {PATH}): install ossfs there, \
             or name it as \"ossfs\" in the node configuration"
        )
    })
}

/// What of systemd the driver meets where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// systemd is the first process, in the mount namespace in which kubelet runs the driver.
    pub systemd: bool,
    /// Its program `systemctl` is there.
    pub systemctl: bool,
    /// Its program `systemd-run` is there.
    pub systemd_run: bool,
}

/// What starts the process of a volume, and starts it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supervision {
    /// systemd, as an instance of the template unit.
    Unit,
    /// The driver, in a scope of systemd.
    Scope,
    /// The driver, as a process of a session of its own.
    Direct,
}

/// What supervises volumes in these `surroundings`: the one rule, for the driver and the installer. An
/// error if `launcher` needs what is not there.
pub fn supervision(launcher: Launcher, surroundings: Surroundings) -> Result<Supervision> {
    let Surroundings {
        systemd,
        systemctl,
        systemd_run,
    } = surroundings;
    let (name, tool, is_there, supervision) = match launcher {
        Launcher::Direct => return Ok(Supervision::Direct),
        Launcher::Auto if systemd && systemctl => return Ok(Supervision::Unit),
        Launcher::Auto => return Ok(Supervision::Direct),
        Launcher::Unit => ("unit", "systemctl", systemctl, Supervision::Unit),
        Launcher::Scope => ("scope", "systemd-run", systemd_run, Supervision::Scope),
    };
    if !(systemd && is_there) {
        bail!(
            "the launcher {name:?} of the node configuration needs systemd and {tool}, which are \
             not available on this node"
        );
    }
    Ok(supervision)
}

/// The supervisor of ossfs on this node; an error if the node does not have what `launcher` needs.
pub(crate) fn choose(launcher: Launcher) -> Result<Supervisor> {
    let systemd_run = systemd::tool("systemd-run");
    let surroundings = Surroundings {
        systemd: systemd::is_running(),
        systemctl: systemd::tool("systemctl").is_some(),
        systemd_run: systemd_run.is_some(),
    };
    Ok(match (supervision(launcher, surroundings)?, systemd_run) {
        (Supervision::Unit, _) => Supervisor::Unit,
        (Supervision::Scope, Some(systemd_run)) => Supervisor::Scope(systemd_run),
        (Supervision::Scope | Supervision::Direct, _) => Supervisor::Direct,
    })
}

/// Starts the process of `volume` outside of systemd's units. It inherits `lock` and holds it until it
/// has recorded itself: should this call be killed in between, the next one finds either no process or
/// its record, never a process on its way.
pub(crate) fn spawn(volume: &Volume, start: &Start, lock: &Lock) -> Result<Child> {
    let _alone = spawning();
    // Other than all else that is open, a duplicate is inherited; the process closes it.
    let _held = dup(lock.as_fd()).context("pass on the lock")?;
    let mut command = match &start.supervisor {
        Supervisor::Scope(systemd_run) => in_scope(systemd_run, volume)?,
        _ => helper::command("oss"),
    };
    if let Some(file) = std::env::var_os(FILE_VARIABLE) {
        command.env(FILE_VARIABLE, file);
    }
    command
        .args(["serve", serve::PARENT])
        .arg(volume.directory())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start the process of the volume")
}

fn in_scope(systemd_run: &Path, volume: &Volume) -> Result<Command> {
    let mut command = Command::new(systemd_run);
    // A scope of the same name may still be ending.
    let unit = format!("alicloud-oss-{}-{}.scope", volume.id(), std::process::id());
    command
        .env_clear()
        .env("PATH", PATH)
        .args(["--quiet", "--scope"])
        .arg(format!("--slice={}", systemd::SLICE))
        .arg(format!("--unit={unit}"))
        .arg("--")
        .arg(systemd::own_program()?);
    Ok(command)
}

/// As `OOMScoreAdjust=` of the unit: half of the node's memory in its favour (proc_pid_oom_score_adj(5)).
/// Not kubelet's own -999, for Pods make what the process remembers grow.
const OOM_SCORE: &str = "-500";

/// Makes this process one that outlives the call which started it. How soon the kernel ends it for memory
/// is for the unit to say, `of_unit`, if it is one's.
pub(crate) fn detach(of_unit: bool) -> Result<()> {
    // A session of its own: no signal to kubelet's group reaches it. It may lead one already.
    let _ = setsid();
    umask(Mode::from_bits_truncate(0o022));
    // A core dump of ossfs would hold its keys. The limit holds for files, the filter for what a
    // core_pattern pipes to a program (core(5)); kernels without core dumps have no such file.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("switch core dumps off")?;
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    if !of_unit {
        // Instead of kubelet's. A process without CAP_SYS_RESOURCE may not lower it; then nothing is in
        // its favour.
        let _ = set_oom_score(OOM_SCORE).or_else(|_| set_oom_score("0"));
    }
    Ok(())
}

fn set_oom_score(score: &str) -> std::io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score)
}

#[cfg(test)]
mod tests {
    use super::{Supervision, Surroundings, supervision};
    use crate::config::Launcher;

    #[test]
    fn volumes_are_units_only_where_systemd_can_run_them() {
        let surroundings = |systemd, systemctl, systemd_run| Surroundings {
            systemd,
            systemctl,
            systemd_run,
        };
        let all = surroundings(true, true, true);
        // kubelet in a container that has the host's /run and systemd's programs.
        let other_namespace = surroundings(false, true, true);
        let no_tools = surroundings(true, false, false);
        for (launcher, surroundings, expected) in [
            (Launcher::Auto, all, Ok(Supervision::Unit)),
            (Launcher::Auto, other_namespace, Ok(Supervision::Direct)),
            (Launcher::Auto, no_tools, Ok(Supervision::Direct)),
            (Launcher::Direct, all, Ok(Supervision::Direct)),
            (Launcher::Unit, all, Ok(Supervision::Unit)),
            (
                Launcher::Unit,
                other_namespace,
                Err("the launcher \"unit\" "),
            ),
            (Launcher::Scope, all, Ok(Supervision::Scope)),
            (Launcher::Scope, no_tools, Err("the launcher \"scope\" ")),
        ] {
            let found = supervision(launcher, surroundings).map_err(|e| e.to_string());
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(*found, expected, "{launcher:?}"),
                (Err(error), Err(start)) => assert!(error.starts_with(start), "{error}"),
                _ => panic!("{launcher:?} {surroundings:?}: {found:?}"),
            }
        }
    }
}
