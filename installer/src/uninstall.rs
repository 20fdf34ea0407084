//! Removing the driver, but not while a volume is mounted: without the driver it could not be
//! unmounted, and its Pod would stay terminating.

use crate::args::Settings;
use crate::directory::Directory;
use crate::find::{self, Installed};
use crate::host::{Host, files};
use crate::install::Owner;
use crate::mounts::{self, MountTables};
use crate::watch::{Stop, Wake};
use crate::{calls, checks, heal, heartbeat, install, node, state};
use alicloud_oss::kubelet::DRIVER_DIRECTORY;
use alicloud_oss::text::list;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often to read the mount table without an event.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Removes the driver and what came with it. While volumes are mounted this is refused, or with
/// `drain` it waits for the last one, with a driver that only unmounts.
pub(crate) fn uninstall(settings: &Settings, drain: bool) -> Result<()> {
    let stop = Stop::catch()?;
    stop.end_within(settings.grace, 1, || {
        log::error!("stopped while the driver was being removed: a second uninstall goes on");
    })?;
    if settings.host_root.is_none() {
        bail!(
            "whether volumes are mounted cannot be seen from here, so nothing is removed: set \
             --host-root=/proc/1/root with hostPID"
        );
    }
    let installed = find::installed(settings)?;
    let problem = checks::state_directory(settings, &installed.host);
    if let Some(problem) = problem.context("nothing is removed")? {
        bail!("nothing is removed: {problem}");
    }
    if let Some(pid) = heartbeat::running(settings)? {
        bail!(
            "nothing is removed: oss-installer run (pid {pid}) would install the driver again: delete its \
             DaemonSet, or stop alicloud-oss-installer.service, first"
        );
    }
    let mut tables = MountTables::open(&settings.proc, &installed.kubelets)?;
    // Before the tables are read, so that nothing is mounted after that.
    state::drain(settings, &installed.host)?;
    let done = remove(settings, &installed, &mut tables, drain.then_some(&stop));
    if done.is_err() && !drain {
        state::end_drain(settings, &installed.host);
    }
    done
}

/// Removes everything, once nothing is mounted; until then `waiting` is waited on, if that is wanted.
fn remove(
    settings: &Settings,
    installed: &Installed,
    tables: &mut MountTables,
    waiting: Option<&Stop>,
) -> Result<()> {
    let host = &installed.host;
    let others = others(settings, installed)?;
    // The volumes of another driver are its own; this one may have left some before it was replaced.
    let has_others_alone = !others.is_empty() && others.len() == installed.directories.len();
    if !has_others_alone || state::has_volumes(settings, host)? {
        wait_for_last(installed, tables, waiting)?;
    }
    let directories: Vec<&PathBuf> = installed
        .directories
        .iter()
        .filter(|path| !others.contains(path))
        .collect();
    end_leftovers(settings, host, directories.first().copied(), tables)?;
    for path in &directories {
        let located = files::locate(host, path)?;
        if let Some(plugins) = Directory::open(&located)? {
            install::remove(&plugins)?;
            // They must not outlive the marker that keeps them from mounting.
            let driver = install::path(&plugins);
            calls::wait_for(&settings.proc, host, &installed.kubelets, &driver)?;
        }
    }
    let (state, rest) = (state::remove(settings, host), node::undo(settings, host));
    state.and(rest)?;
    for path in &directories {
        log::info!("removed the driver from {}", path.display());
    }
    for path in &others {
        log::warn!(
            "the driver in {} stays: it is not this one",
            path.join(DRIVER_DIRECTORY).display()
        );
    }
    if installed.directories.is_empty() {
        log::info!("no well-known plugin directory has the driver");
    }
    Ok(())
}

/// The plugin directories that have a driver of somebody else's.
fn others(settings: &Settings, installed: &Installed) -> Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for path in &installed.directories {
        let located = files::locate(&installed.host, path)?;
        if let Some(plugins) = Directory::open(&located)?
            && install::owner(&plugins, &settings.driver)? == Owner::Other
        {
            others.push(path.clone());
        }
    }
    Ok(others)
}

/// Comes back once no volume is mounted, or with an error while there is one.
fn wait_for_last(
    installed: &Installed,
    tables: &mut MountTables,
    waiting: Option<&Stop>,
) -> Result<()> {
    let mut logged = None;
    loop {
        let volumes = tables.volumes()?;
        let Some(problem) = checks::mounted(&volumes, &installed.host) else {
            return Ok(());
        };
        let Some(stop) = waiting else {
            bail!("{problem}");
        };
        if logged.as_ref() != Some(&volumes) {
            log::info!(
                "no new mounts are allowed; waiting for {}",
                mounts::describe(&volumes, &installed.host)
            );
            logged = Some(volumes);
        }
        if stop.wait(&tables.sources(), LOOK_AGAIN)? == Wake::Stop {
            bail!("stopped while volumes are mounted: the driver stays, and only unmounts");
        }
    }
}

/// Has the driver release the volumes of calls that were killed, which no target is bound to: their
/// daemons still run, and their key files are still there.
fn end_leftovers(
    settings: &Settings,
    host: &Host,
    plugins: Option<&PathBuf>,
    tables: &mut MountTables,
) -> Result<()> {
    // The last unmount call may still run.
    state::wait_for_calls(settings, host)?;
    if let Some(plugins) = plugins
        && state::has_volumes(settings, host)?
    {
        heal::end_leftovers(host, plugins, &state::targets(settings, host)?);
    }
    let volumes = state::volumes(settings, host)?;
    let seen_by_host = Path::new("/").join(volumes.strip_prefix(host.root()).unwrap_or(&volumes));
    let left = tables.below(&seen_by_host)?;
    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
        bail!(
            "calls that were killed have left mounts that the driver did not end: {}: see its \
             messages above, then umount(8) them, or repair the driver first with oss-installer run",
            list(&left, ", ")
        );
    }
    Ok(())
}
