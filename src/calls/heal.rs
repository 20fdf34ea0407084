//! `oss heal [ID…]`: has every volume of this node served by a live daemon, and every place that
//! still shows a dead one's file system show the live one, in running containers too.
//!
//! It may be called at any time and as often as wanted: by the unit of a daemon that was restarted,
//! by whatever runs periodically, by a person. What it finds in order it leaves alone.

use crate::config::Config;
use crate::mounts::namespaces::{self, Namespace, pod_of};
use crate::mounts::replace::{self, Succession, places};
use crate::mounts::table::MountTable;
use crate::ossfs::hung;
use crate::ossfs::launch;
use crate::ossfs::probe::{self, Health};
use crate::service::ensure;
use crate::service::sweep::sweep;
use crate::service::targets;
use crate::state::directory::StateDirectory;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::failpoint;
use crate::sys::lock::Lock;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a daemon that works may take to answer one probe.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// How many probes in a row must stay unanswered until a daemon counts as hung.
const PROBES: usize = 3;

/// Heals the volumes `ids`, or all of the node; ids without a volume are no error, it has ended.
/// Returns one line for each volume that had to be healed; the error names each that could not be.
pub(super) fn heal(ids: &[String], config: &Config) -> Result<Vec<String>> {
    let Some(state) = StateDirectory::find(&config.state_dir)? else {
        return Ok(Vec::new());
    };
    state.prepare()?;
    sweep(&state, Deadline::after(config.unmount_timeout));
    let (mut healed, mut failed) = (Vec::new(), Vec::new());
    for volume in state.all()? {
        if !ids.is_empty() && !ids.iter().any(|id| id == volume.id()) {
            continue;
        }
        match heal_one(&volume, config) {
            Ok(Some(line)) => healed.push(format!("volume {}: {line}", volume.id())),
            Ok(None) => {}
            Err(e) => failed.push(format!("volume {}: {e:#}", volume.id())),
        }
    }
    for line in &healed {
        log::info!("heal: {line}");
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(healed)
}

/// What the unit of the volume `id` does behind each start of its daemon: waits until that serves the
/// volume, and puts it where a dead one shows. Returns one line if there was something to replace.
/// An error if the volume is not served, late enough for the unit to be started again at once.
/// A volume that has ended, or that a call is busy with for too long, is none.
pub(super) fn after_start(id: &str, config: &Config) -> Result<Vec<String>> {
    let Some(state) = StateDirectory::find(&config.state_dir)? else {
        return Ok(Vec::new());
    };
    state.prepare()?;
    let Some(volume) = state.all()?.into_iter().find(|volume| volume.id() == id) else {
        return Ok(Vec::new());
    };
    let patience = Deadline::after(config.mount_timeout.saturating_mul(2));
    let lock = match volume.lock_existing(patience) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Ok(Vec::new()),
        Err(e) => {
            log::warn!("volume {id}: {e:#}");
            return Ok(Vec::new());
        }
    };
    // A process with the relay sees to all of this itself.
    if !volume.is_used()? || volume.read_start()?.is_none() || volume.has_plan() {
        return Ok(Vec::new());
    }
    let served = ensure::await_unit(
        &volume,
        main_process(),
        Deadline::after(config.mount_timeout),
    );
    if let Err(e) = served {
        drop(lock);
        log::warn!("volume {id}: {e:#}");
        launch::hold_back(&volume)?;
        return Err(e);
    }
    match replace_everywhere(&volume, Deadline::after(config.mount_timeout)) {
        Ok(0) => Ok(Vec::new()),
        Ok(replaced) => {
            let line = format!("volume {id}: {replaced} mounts of a dead daemon replaced");
            log::info!("heal: {line}");
            Ok(vec![line])
        }
        // No reason to end a daemon that serves.
        Err(e) => {
            log::error!("heal: volume {id}: {e:#}");
            Ok(vec![format!("volume {id}: {e:#}")])
        }
    }
}

/// The process that systemd has started for the unit whose ExecStartPost this is (systemd.exec(5)).
fn main_process() -> Option<i32> {
    std::env::var("MAINPID").ok()?.parse().ok()
}

/// Has a volume with the relay served again whose process was killed together with what kept its
/// connection, or was stopped by an administrator.
fn heal_relayed(volume: &Volume, lock: &Lock, config: &Config) -> Result<Option<String>> {
    if volume.running_daemon()?.is_some() {
        return Ok(None);
    }
    ensure::serve(volume, lock, Deadline::after(config.mount_timeout))?;
    Ok(Some(format!(
        "a new process serves it; running containers keep the dead mount unless it is propagated to \
         them: restart the Pods {}",
        targets::pods(volume)?.join(", ")
    )))
}

fn heal_one(volume: &Volume, config: &Config) -> Result<Option<String>> {
    let patience = Deadline::after(config.mount_timeout);
    let Some(lock) = volume.lock_existing(patience)? else {
        return Ok(None);
    };
    if !volume.is_used()? {
        return Ok(None);
    }
    if volume.has_plan() {
        return heal_relayed(volume, &lock, config);
    }
    let health = health(volume)?;
    // From here on: finding out that a daemon is hung takes its time.
    let deadline = Deadline::after(config.mount_timeout);
    let restarted = match health {
        Health::Serving(flags) => {
            if let Some(start) = volume.read_start()? {
                ensure::record_healthy(volume, flags, &start)?;
            }
            false
        }
        Health::Dead => {
            ensure::restart(volume, &lock, deadline)?;
            true
        }
        Health::Unusable(how) => bail!("{how}"),
        Health::Unresponsive => {
            hung::report(volume, config.abort_hung_after)?;
            ensure::restart(volume, &lock, deadline)?;
            true
        }
    };
    failpoint::reach("heal: served");
    let replaced = replace_everywhere(volume, deadline)?;
    Ok((restarted || replaced > 0).then(|| {
        format!(
            "{}, {replaced} mounts of a dead daemon replaced",
            if restarted {
                "a new daemon serves it"
            } else {
                "its daemon serves it"
            }
        )
    }))
}

/// The volume's health: dead also where no daemon is known or nothing is mounted.
fn health(volume: &Volume) -> Result<Health> {
    let Some(process) = volume.running_daemon()? else {
        return Ok(Health::Dead);
    };
    let mut health = Health::Unresponsive;
    for _ in 0..PROBES {
        health = probe::health(&volume.staging(), Deadline::after(PROBE_TIME))?;
        if health != Health::Unresponsive {
            break;
        }
    }
    match health {
        // On its way: a daemon that was just restarted has not mounted yet.
        Health::Dead if process.is_running()? => Ok(Health::Dead),
        health => Ok(health),
    }
}

/// Replaces the volume's dead file systems by the live one wherever they show. Returns how many
/// places were replaced; the error names those that could not be, with the Pods to restart.
pub(super) fn replace_everywhere(volume: &Volume, deadline: Deadline) -> Result<usize> {
    let table = MountTable::read()?;
    let Some(succession) = succession(volume, &table)? else {
        return Ok(0);
    };
    let staging = volume.staging();
    let own = places(&table, &succession);
    // Mounts that follow a target of ours get the new one by propagation, when it is their turn.
    let groups: BTreeSet<u64> = own
        .iter()
        .flat_map(|place| table.layers(&place.mount_point))
        .filter_map(|m| m.shared)
        .collect();
    let is_concerned = |text: &str| shows(text, &succession);

    let mut replaced = own.len();
    let mut failed = Vec::new();
    // The others first: the device numbers of the dead are known from the layers of our own places.
    let of_others = Succession {
        left_to: groups,
        ..succession.clone()
    };
    for namespace in namespaces::others(is_concerned) {
        let found = places(&namespace.table, &of_others);
        if !found.is_empty() {
            replaced += found.len();
            failed.extend(replace_in(&namespace, &staging, &of_others, deadline)?);
        }
    }
    failpoint::reach("heal: containers replaced");
    if !own.is_empty() {
        let parents: BTreeSet<u64> = own
            .iter()
            .filter_map(|place| {
                table
                    .parent(table.layers(&place.mount_point).first()?)?
                    .shared
            })
            .collect();
        let at_targets = Succession {
            kept: namespaces::others(is_concerned)
                .iter()
                .flat_map(|namespace| replace::needed(&namespace.table, &of_others, &parents))
                .collect(),
            ..succession.clone()
        };
        failed.extend(replace::replace(&staging, &at_targets, None, deadline)?);
    }
    failpoint::reach("heal: targets replaced");
    // What was taken away has no number any more: it may be another volume's already.
    let table = MountTable::read()?;
    if let Some(succession) = self::succession(volume, &table)? {
        let is_concerned = |text: &str| shows(text, &succession);
        for namespace in namespaces::others(is_concerned) {
            let left = places(&namespace.table, &succession);
            if !left.is_empty() {
                replaced += left.len();
                failed.extend(replace_in(&namespace, &staging, &succession, deadline)?);
            }
        }
    }
    if !failed.is_empty() {
        failed.sort_unstable();
        failed.dedup();
        bail!("{}", failed.join("; "));
    }
    Ok(replaced)
}

/// Whether a mount table's text has a dead file system of `succession` in it.
fn shows(text: &str, succession: &Succession) -> bool {
    let mut dead = succession.dead.iter();
    dead.any(|dead| text.contains(&format!(" {dead} ")))
}

fn replace_in(
    namespace: &Namespace,
    staging: &std::path::Path,
    succession: &Succession,
    deadline: Deadline,
) -> Result<Vec<String>> {
    let failed = replace::replace(staging, succession, Some(namespace.pid), deadline)?;
    let pod = pod_of(namespace.pid).map_or(String::new(), |uid| format!(", Pod {uid}"));
    Ok(failed
        .iter()
        .map(|line| format!("process {}{pod}: {line}", namespace.pid))
        .collect())
}

/// The live device of `volume` and the dead ones below it or at its targets; nothing if there are no
/// dead ones.
fn succession(volume: &Volume, table: &MountTable) -> Result<Option<Succession>> {
    let staging = volume.staging();
    let live = table
        .top(&staging)
        .filter(|m| m.is_ossfs())
        .context("nothing is mounted at the staging directory")?;
    let (live, options) = (live.device.clone(), live.options.clone());
    let mut dead = BTreeSet::new();
    for target in volume.targets()? {
        let layers = table.layers(target.path());
        dead.extend(
            layers
                .iter()
                .filter(|m| m.is_ossfs() && m.device != live)
                .map(|m| m.device.clone()),
        );
    }
    Ok((!dead.is_empty()).then_some(Succession {
        live,
        options,
        dead,
        kept: BTreeSet::new(),
        left_to: BTreeSet::new(),
    }))
}
