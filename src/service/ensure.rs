//! Having a volume served: by its process, `oss serve`, which keeps the mount and starts ossfs.

use crate::descriptor::Descriptor;
use crate::mounts::directory;
use crate::ossfs::probe::{self, Health};
use crate::ossfs::{diagnosis, launch, systemd, unit_files};
use crate::serve::protocol::{State, Status};
use crate::serve::{client, failure};
use crate::service::release::{abandon, clear, end_if_only_read};
use crate::state::start::{Start, Supervisor};
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::lock::Lock;
use crate::sys::{failpoint, root_only};
use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};

/// How long the result of a probe is trusted: Pods that start at once cause one request to the store.
const PROBE_HOLDS: Duration = Duration::from_secs(1);
/// How long the volume's process may take to report what ossfs printed.
const REASON_TIME: Duration = Duration::from_millis(500);

/// Has `volume`, whose `lock` is held and whose start and plan are recorded, served: by the process
/// that does already, or by a new one. The error says why it is not by `deadline`; a process that was
/// started continues to try until the volume is removed.
///
/// The ossfs of a build before `oss serve` is left to serve its volume for as long as it lives.
pub(crate) fn ensure_served(volume: &Volume, lock: &Lock, deadline: Deadline) -> Result<()> {
    let start = volume.read_start()?.context("volume.json is missing")?;
    let running = volume.running_daemon()?;
    if running.is_some()
        && volume.was_probed_within(PROBE_HOLDS)
        && directory::is_mount_point(&volume.staging())?
    {
        return Ok(());
    }
    let since = Instant::now();
    match running {
        Some(_) => {}
        None if !volume.has_plan() => bail!(
            "an earlier build of the driver mounted it and its ossfs has ended: it is served again \
             once another Pod mounts this volume"
        ),
        None => launch(volume, lock, &start, deadline)?,
    }
    if volume.has_plan() {
        wait_for_process(volume, &start, since, deadline)?;
    }
    check(volume, &start, since, deadline)?;
    failpoint::reach("serve: served");
    volume.record_probe()
}

/// Waits until a process of `volume`, whose lock is held, that was unmounted has uploaded everything
/// and exited: a new one would write beside it. An error if it has not by `deadline`; then it is left
/// to finish. To be called before the volume is recorded anew.
pub(crate) fn wait_for_predecessor(volume: &Volume, deadline: Deadline) -> Result<()> {
    let Some(process) = volume.running_daemon()? else {
        return Ok(());
    };
    // Whatever ends a volume removes its start first. One that is still mounted goes on to serve.
    if volume.read_start()?.is_some() || directory::is_mount_point(&volume.staging())? {
        return Ok(());
    }
    // With the marker it would wait for the lock before it ends.
    let since = volume.clear_abandoned()?;
    end_if_only_read(volume);
    if process.wait(deadline)? || !abandon(volume, &process, since)? {
        return Ok(());
    }
    bail!(
        "the previous ossfs of this volume (process {}) still uploads to the bucket, or something \
         still has its files open: kubelet tries again",
        process.pid()
    )
}

/// Starts the process of `volume`, of which nothing is left mounted before.
fn launch(volume: &Volume, lock: &Lock, start: &Start, deadline: Deadline) -> Result<()> {
    log::debug!("{} {:?}", start.program.display(), start.arguments);
    clear(volume, deadline)?;
    root_only::make_directory(&volume.staging())?;
    failure::remove(volume.directory())?;
    if start.supervisor == Supervisor::Unit {
        let volumes = volume.directory().parent().unwrap_or(volume.directory());
        let plan = volume.plan()?.context("serve.json is missing")?;
        unit_files::install(volumes, plan.memory_limit)?;
        if start.takes_ram_role() {
            unit_files::allow_metadata(volume.id())?;
        }
        return systemd::start(volume.id());
    }
    launch::spawn(volume, start, lock)?;
    failpoint::reach("serve: started");
    Ok(())
}

/// Waits until ossfs answers the process of `volume`. The error has ossfs's own reason where there is
/// one.
fn wait_for_process(
    volume: &Volume,
    start: &Start,
    since: Instant,
    deadline: Deadline,
) -> Result<()> {
    let status = match client::wait(volume.directory(), Instant::now() + deadline.remaining()) {
        Ok(status) => status,
        Err(_) if deadline.has_passed() => match printed(volume) {
            Some(printed) => bail!(
                "ossfs has not begun to serve within {}{}",
                elapsed(since),
                or_url(explain(&printed, start))
            ),
            None => bail!(
                "the process of the volume (oss serve) has not answered within {}: see the driver's \
                 log, or the journal",
                elapsed(since)
            ),
        },
        Err(e) => return Err(e),
    };
    match failure(&status.state, start, since) {
        Some(failure) => bail!(failure),
        None if status.state == State::Served => Ok(()),
        None => bail!("the process of the volume is ending: kubelet tries again"),
    }
}

/// What to report if ossfs could not be started.
fn failure(state: &State, start: &Start, since: Instant) -> Option<String> {
    let State::Failed {
        exit,
        signal,
        output,
    } = state
    else {
        return None;
    };
    let how = match (exit, signal) {
        (Some(0), _) => "exited without serving the mount (status 0)".to_owned(),
        (Some(status), _) => format!("exited with status {status}"),
        (None, Some(signal)) => format!("was killed by a signal ({signal})"),
        (None, None) => "could not be started".to_owned(),
    };
    let explained = explain(output, start);
    Some(format!("ossfs {how} after {}{explained}", elapsed(since)))
}

/// Checks that the store answers ossfs, through the mount.
fn check(volume: &Volume, start: &Start, since: Instant, deadline: Deadline) -> Result<()> {
    match probe::health(&volume.staging(), &volume.probe_lock(), deadline)? {
        Health::Serving(_) => Ok(()),
        Health::Dead => bail!(
            "ossfs exited immediately after mounting{}",
            reason(volume, start)
        ),
        Health::Unusable(how) => bail!(
            "ossfs mounted the bucket, but {how}{}",
            reason(volume, start)
        ),
        Health::Unresponsive => {
            let status = status(volume);
            // It served when this call began, and has ended since.
            if let Some(failure) = status.and_then(|status| failure(&status.state, start, since)) {
                bail!(failure);
            }
            bail!(
                "the store has not answered ossfs within {}{}",
                elapsed(since),
                or_url(reason(volume, start))
            )
        }
    }
}

fn elapsed(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

fn explain(output: &str, start: &Start) -> String {
    let format = &Descriptor::of_program(&start.program).output;
    diagnosis::explain(format, output)
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default()
}

/// The state of the volume's process; `None` if it does not answer.
fn status(volume: &Volume) -> Option<Status> {
    client::status(volume.directory(), Instant::now() + REASON_TIME).ok()
}

/// What ossfs printed last; `None` if its process does not answer.
fn printed(volume: &Volume) -> Option<String> {
    Some(status(volume)?.printed)
}

/// What ossfs printed last, as a reason, if its process can tell.
fn reason(volume: &Volume, start: &Start) -> String {
    printed(volume).map_or(String::new(), |printed| explain(&printed, start))
}

/// ossfs retries in silence for minutes where an endpoint does not answer.
fn or_url(reason: String) -> String {
    match reason {
        reason if reason.is_empty() => {
            ": check the url, and that this node can reach it".to_owned()
        }
        reason => reason,
    }
}
