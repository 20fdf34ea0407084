//! Calls of the driver that run at this moment.

use crate::host::Host;
use alicloud_oss::sys::deadline::Deadline;
use alicloud_oss::sys::process::{Process, ProcessId};
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than a call takes that has no lock and finds the marker of the drain.
const LIMIT: Duration = Duration::from_secs(60);
/// How often to check for the end of a process that has another number in this pid namespace.
const CHECK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until each process of `proc` has ended that runs the driver whose file was at `driver`, as
/// seen from here on `host`. Calls are in the mount namespace of the host or of one of its `kubelets`:
/// in those of containers anything may have that path. An error if one still runs after a minute.
pub(crate) fn wait_for(proc: &Path, host: &Host, kubelets: &[u32], driver: &Path) -> Result<()> {
    let path = Path::new("/").join(driver.strip_prefix(host.root()).unwrap_or(driver));
    let removed = format!("{} (deleted)", path.display());
    let callers = callers(proc, kubelets);
    let may_call = |process: &Path| match &callers {
        Some(namespaces) => mount_namespace(process).is_some_and(|own| namespaces.contains(&own)),
        None => true,
    };
    let runs_it = |process: &Path| {
        std::fs::read_link(process.join("exe"))
            .is_ok_and(|exe| exe == path || exe == Path::new(&removed))
            && may_call(process)
    };
    let deadline = Deadline::after(LIMIT);
    let entries = std::fs::read_dir(proc).with_context(|| format!("list {}", proc.display()))?;
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        while runs_it(&entry.path()) {
            if deadline.has_passed() {
                bail!("process {pid}, a call of the driver, did not end within a minute");
            }
            match open(pid)? {
                // Checked once more: another process may have the number by now.
                Some(process) if runs_it(&entry.path()) => {
                    process.wait(deadline)?;
                }
                Some(_) => {}
                None => std::thread::sleep(CHECK_AGAIN.min(deadline.remaining())),
            }
        }
    }
    Ok(())
}

/// The mount namespaces of the processes of `proc` that may call the driver: that of the first one, and
/// of `kubelets`. `None` if it cannot be told, which is no reason to overlook a call.
fn callers(proc: &Path, kubelets: &[u32]) -> Option<Vec<PathBuf>> {
    let namespace = |pid: &u32| mount_namespace(&proc.join(pid.to_string()));
    let mut namespaces = vec![namespace(&1)?];
    namespaces.extend(kubelets.iter().filter_map(namespace));
    Some(namespaces)
}

/// The mount namespace of the process whose directory in /proc is `process`, as namespaces(7) names it.
fn mount_namespace(process: &Path) -> Option<PathBuf> {
    std::fs::read_link(process.join("ns/mnt")).ok()
}

/// The running process `pid` of this pid namespace.
fn open(pid: i32) -> Result<Option<Process>> {
    match ProcessId::of_pid(pid)? {
        Some(id) => id.open(),
        None => Ok(None),
    }
}
