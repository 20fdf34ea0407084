//! `oss heal [ID…]`: has every volume of this node served that is not.
//!
//! The mount of a volume outlives its ossfs, and the process that serves it; see `serve`. What is left
//! to heal are volumes whose process was killed together with what kept its connection, or was stopped
//! by an administrator. It may be called at any time and as often as wanted: what it finds in order it
//! leaves alone.

use crate::config::Config;
use crate::ossfs::systemd;
use crate::service::sweep::sweep;
use crate::service::{ensure, targets};
use crate::state::directory::StateDirectory;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::text::list;
use anyhow::{Result, bail};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// How many volumes are healed at once: each takes a few processes, and as a rule waits for its store.
const MOST_AT_ONCE: usize = 8;

/// Heals the volumes `ids`, or all of the node; ids without a volume are no error, it has ended.
/// Returns one line for each volume that had to be healed; the error names each that could not be.
pub(super) fn heal(ids: &[String], config: &Config) -> Result<Vec<String>> {
    let Some(state) = StateDirectory::find(&config.state_dir)? else {
        return Ok(Vec::new());
    };
    state.prepare()?;
    let deadline = Deadline::after(config.unmount_timeout);
    sweep(&state, config.finish_timeout, deadline);
    let mut volumes = state.all()?;
    volumes.retain(|volume| ids.is_empty() || ids.iter().any(|id| id == volume.id()));
    // One that takes its whole time holds up none that answers.
    volumes.sort_by_key(Volume::is_unhealed);
    let (mut healed, mut failed) = (Vec::new(), Vec::new());
    for (volume, outcome) in volumes.iter().zip(heal_all(&volumes, config)) {
        match outcome {
            Ok(Some(line)) => healed.push(format!("volume {}: {line}", volume.id())),
            Ok(None) => {}
            Err(e) => failed.push(format!("volume {}: {e:#}", volume.id())),
        }
    }
    for line in &healed {
        log::info!("heal: {line}");
    }
    if !failed.is_empty() {
        bail!("{}", list(&failed, "; "));
    }
    Ok(healed)
}

/// What `heal_one` returns for each of `volumes`, of which a few are healed at a time, in their order.
fn heal_all(volumes: &[Volume], config: &Config) -> Vec<Result<Option<String>>> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..volumes.len().min(MOST_AT_ONCE) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(volume) = volumes.get(at) else {
                        return;
                    };
                    let outcome = heal_one(volume, config);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.push((at, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// One line if `volume` had to be healed.
fn heal_one(volume: &Volume, config: &Config) -> Result<Option<String>> {
    let deadline = Deadline::after(config.mount_timeout);
    let Some(lock) = volume.lock_existing(deadline)? else {
        return Ok(None);
    };
    if !volume.is_used()? || volume.running_daemon()?.is_some() {
        volume.record_healed(true)?;
        return Ok(None);
    }
    let healed = ensure::ensure_served(volume, &lock, deadline);
    volume.record_healed(healed.is_ok())?;
    if let Err(e) = healed {
        // It may lack what this caller lacks, as in a Pod: the next call starts one of its own.
        if let Some(process) = volume.running_daemon()?
            && !systemd::is_running()
        {
            process.kill();
        }
        return Err(e);
    }
    Ok(Some(format!(
        "a new process serves it; running containers keep the dead mount unless it is propagated to \
         them: restart the Pods {}",
        list(&targets::pods(volume)?, ", ")
    )))
}
