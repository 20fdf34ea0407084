//! `oss serve [--parent] DIRECTORY`: the process of a volume, started by a unit of systemd or by the
//! mount call.

use crate::ossfs::launch;
use crate::serve;
use crate::service::release::finish;
use crate::service::targets;
use crate::state::volume::Volume;
use crate::sys::process::ProcessId;
use crate::text::list;
use anyhow::{Result, bail};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

/// The shortest time from the start of one process of a volume to that of the next. systemd starts one at
/// once: a `RestartSec=` that is not zero takes up to a quarter of a second longer than it says.
const PACE: Duration = Duration::from_millis(100);

/// Serves the volume that `args` name until it is unmounted; see `serve::main` for the exit status.
/// Nothing to do, and a success, where the volume has ended meanwhile.
pub fn serve(args: &[OsString]) -> ExitCode {
    let volume = args.last().and_then(|path| Volume::at(Path::new(path)));
    let Some(volume) = volume else {
        return ExitCode::from(2);
    };
    // A child's parent does what comes before and after.
    let is_child = args
        .first()
        .is_some_and(|first| first == serve::role::CHILD);
    if !is_child {
        let of_unit = args.first().is_none_or(|first| first != serve::PARENT);
        match prepare(&volume, of_unit) {
            Ok(true) => {}
            Ok(false) => return ExitCode::SUCCESS,
            Err(e) => {
                serve::failure::record(volume.directory(), &format!("{e:#}"));
                return ExitCode::from(serve::role::GIVE_UP);
            }
        }
    }
    let status = serve::main(args.iter().cloned(), &|| bind_lost(&volume));
    if !is_child && let Err(e) = finish(&volume) {
        log::warn!("volume {}: {e:#}", volume.id());
    }
    status
}

/// What comes before the process serves `volume`, as the main one of a unit or not. False if the volume has
/// ended.
fn prepare(volume: &Volume, of_unit: bool) -> Result<bool> {
    if volume.read_start()?.is_none() {
        return Ok(false);
    }
    if !volume.has_plan() {
        bail!(
            "an earlier build of the driver mounted the volume: it is served again once another Pod mounts it"
        );
    }
    launch::detach(of_unit)?;
    let own = ProcessId::own()?;
    if let Some(earlier) = volume.recorded_daemon()?
        && let Some(after) = own.started_after(&earlier)
    {
        sleep(PACE.saturating_sub(after));
    }
    volume.record_daemon(&own)?;
    Ok(true)
}

/// After a new mount was made: its targets may still have a dead one.
fn bind_lost(volume: &Volume) {
    match targets::bind_lost(volume) {
        Ok(pods) if pods.is_empty() => {}
        Ok(pods) => log::warn!(
            "volume {}: its mount was lost and has been replaced; restart the Pods {}",
            volume.id(),
            list(&pods, ", ")
        ),
        Err(e) => log::error!("volume {}: {e:#}", volume.id()),
    }
}
