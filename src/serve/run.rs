//! From `oss serve`'s arguments to a volume that is served: descriptors, plan, connection, tables.

use crate::logging;
use crate::sandbox::{Group, LiveFiles};
use crate::serve::bare::Bare;
use crate::serve::connection::{self, Control};
use crate::serve::daemon_spec::{LIVE, SANDBOX, STAGING, spec};
use crate::serve::ends::Ends;
use crate::serve::event_loop::{EventLoop, Outcome};
use crate::serve::journal::{self, Journal, Left};
use crate::serve::keeper::{FUSE, Keeper};
use crate::serve::lost::LostRequests;
use crate::serve::notifier::Notifier;
use crate::serve::plan::Plan;
use crate::serve::protocol::{SOCKET, Status};
use crate::serve::relay::{BUFFER, Relay, Settings, resend};
use crate::serve::role::{GIVE_UP, Role};
use crate::serve::shared::Shared;
use crate::serve::signals::Signals;
use crate::serve::starts::Starts;
use crate::serve::{control, descriptors, failure, parent};
use crate::sys::root_only;
use crate::text::log_line;
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

pub(crate) fn main(args: impl IntoIterator<Item = OsString>, on_new_mount: &dyn Fn()) -> ExitCode {
    let Some((role, volume)) = Role::parse(args) else {
        return ExitCode::from(2);
    };
    // First of all: whatever is opened from here on stays open.
    let inherited = descriptors::take_inherited(std::process::id());
    start_log(&volume);
    let result = inherited.and_then(|passed| match role {
        Role::Parent => parent::run(&volume).map(|()| Outcome::Ended),
        Role::Child => serve(&volume, Keeper::parent()?, on_new_mount),
        Role::Only => serve(&volume, (Keeper::systemd(), passed), on_new_mount),
    });
    match result {
        Ok(Outcome::Ended) => ExitCode::SUCCESS,
        Ok(Outcome::Aborted) => {
            log::error!("the FUSE connection of {} was aborted", volume.display());
            ExitCode::FAILURE
        }
        Err(e) => {
            log::error!("serve {}: {e:#}", volume.display());
            match e.is::<GaveUp>() {
                true => ExitCode::from(GIVE_UP),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Logs to the file that the plan names; without one to stderr, which is the journal's under systemd.
fn start_log(volume: &Path) {
    if let Some(log) = Plan::read(volume).ok().and_then(|plan| plan.log) {
        return logging::start(&log.file, log.level);
    }
    let format = |out: &mut env_logger::fmt::Formatter, record: &log::Record<'_>| {
        let text = log_line(&record.args().to_string());
        writeln!(out, "{:5} {text}", record.level())
    };
    // Another logger is there already, in tests.
    let _ = env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .format(format)
        .try_init();
}

/// An error that another start would meet again.
#[derive(Debug)]
struct GaveUp(anyhow::Error);

impl std::fmt::Display for GaveUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for GaveUp {}

/// Serves the volume until it is unmounted.
fn serve(
    volume: &Path,
    (keeper, kept): (Keeper, Vec<(String, OwnedFd)>),
    on_new_mount: &dyn Fn(),
) -> Result<Outcome> {
    let fuse = kept
        .into_iter()
        .find_map(|(name, fd)| (name == FUSE).then_some(fd));
    let signals = Signals::take()?;
    failure::remove(volume)?;
    let had_connection = fuse.is_some();
    match begin(volume, &keeper, fuse, signals, on_new_mount) {
        Ok(begun) => {
            let outcome = match begun {
                Begun::Relay(event_loop) => event_loop.run()?,
                Begun::Bare(bare, fuse) => bare.run(fuse)?,
            };
            clean_up(volume, &keeper, &outcome);
            Ok(outcome)
        }
        // The mount is there, and the next process may serve it.
        Err(e) if had_connection => Err(e),
        Err(e) => {
            failure::record(volume, &format!("{e:#}"));
            Err(GaveUp(e).into())
        }
    }
}

/// A volume that is about to be served.
enum Begun {
    Relay(Box<EventLoop>),
    Bare(Box<Bare>, OwnedFd),
}

/// Everything up to the first turn of the loop. `fuse` is the connection of a process that was
/// killed.
fn begin(
    volume: &Path,
    keeper: &Keeper,
    fuse: Option<OwnedFd>,
    signals: Signals,
    on_new_mount: &dyn Fn(),
) -> Result<Begun> {
    let plan = Plan::read(volume)?;
    let staging = volume.join(STAGING);
    let mut spec = spec(&plan, volume)?;
    let group = memory_group(&plan, volume, keeper);
    spec.groups.extend(group.iter().map(Group::procs));
    let live_files = LiveFiles::new(&spec.live_files)?;
    let settings = || Settings {
        // What the daemon owns looks like root's, as without a sandbox.
        own_uid: (plan.sandbox.uid != 0).then_some(plan.sandbox.uid),
        request_timeout: plan.request_timeout(),
    };
    let now = Instant::now();
    let mut status = Status::new(std::process::id());
    if !plan.relay {
        // A connection of before the daemon's end is dead.
        drop(fuse);
        let fuse = connection::mount_new(&plan, &staging)?;
        on_new_mount();
        let mounted = Mounted {
            staging: Some(&staging),
        };
        let shared = Arc::new(Shared::new(status.clone())?);
        control::listen(volume, Arc::clone(&shared))?;
        keeper.ready()?;
        mounted.stays();
        let bare = Box::new(Bare {
            spec,
            staging,
            shared,
            signals,
            live_files,
            status,
            _group: group,
        });
        return Ok(Begun::Bare(bare, fuse));
    }
    let restored = match fuse {
        Some(fuse) => restore(volume, settings(), fuse.as_fd())
            .map(|(relay, resent)| (relay, resent, fuse))
            // A connection whose tables are lost is of no use: closed, its callers get an error.
            .inspect_err(|e| log::error!("the mount is lost: {e:#}"))
            .ok(),
        None => None,
    };
    status.restored = restored.is_some();
    let (relay, resent, fuse) = match restored {
        Some(restored) => restored,
        None => {
            keeper.forget(FUSE)?;
            let fuse = connection::mount_new(&plan, &staging)?;
            on_new_mount();
            (Relay::new(settings()), false, fuse)
        }
    };
    let mounted = Mounted {
        staging: Some(staging.as_path()).filter(|_| !status.restored),
    };
    connection::set_nonblocking(fuse.as_fd())?;
    keeper.keep(FUSE, fuse.as_raw_fd())?;
    let journal = Journal::begin(volume, &relay)?;
    let mut event_loop = Box::new(EventLoop {
        staging: staging.clone(),
        hung_after: plan.hung_after(),
        ends: Ends {
            daemon: None,
            notifier: Notifier::new(fuse.try_clone().context("duplicate a descriptor")?),
            journal,
            fuse,
        },
        relay,
        shared: Arc::new(Shared::new(status.clone())?),
        signals,
        live_files,
        starts: Starts::default(),
        next_start: Some(now),
        start_again: false,
        next_look: Some(now),
        lost: None,
        buffer: vec![0; BUFFER],
        quitting: false,
        leaving: false,
        emptied: plan.emptied.clone(),
        spec,
        status,
        _group: group,
    });
    if event_loop.status.restored {
        log::warn!(
            "took {} over from a process that was killed",
            volume.display()
        );
        event_loop.relay.daemon_ended(now, &mut event_loop.ends);
        if !resent {
            let control = Control::find(&staging);
            event_loop.lost = control.map(|control| LostRequests::new(control, now));
        }
    }
    control::listen(volume, Arc::clone(&event_loop.shared))?;
    keeper.ready()?;
    mounted.stays();
    Ok(Begun::Relay(event_loop))
}

/// A mount that is taken off again unless all that follows succeeds: nobody would serve it.
struct Mounted<'a> {
    staging: Option<&'a Path>,
}

impl Mounted<'_> {
    fn stays(mut self) {
        self.staging = None;
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Some(staging) = self.staging
            && let Err(e) = connection::unmount_all(staging)
        {
            log::warn!("{e:#}");
        }
    }
}

/// The relay from the tables of a process that was killed, and whether the kernel hands over again what
/// was in flight: then nothing of that is lost.
fn restore(volume: &Path, settings: Settings, fuse: BorrowedFd<'_>) -> Result<(Relay, bool)> {
    let left = Left::read(volume)?;
    let relay = |in_flight: &[u64]| {
        Relay::restore(settings, &left.nodes, in_flight)
            .with_context(|| format!("restore the tables in {}", volume.display()))
    };
    // Before the kernel is asked for anything: a journal that cannot be read is the end of the mount.
    let restored = relay(&left.in_flight)?;
    // Kernels before 6.9 do not know it.
    match connection::write(fuse, &resend()) {
        Ok(()) => Ok((relay(&[])?, true)),
        Err(_) => Ok((restored, false)),
    }
}

/// The control group that bounds ossfs's memory where no unit of systemd does; None where there cannot
/// be one.
fn memory_group(plan: &Plan, volume: &Path, keeper: &Keeper) -> Option<Group> {
    if matches!(keeper, Keeper::Systemd(_)) {
        return None;
    }
    let name = volume.file_name()?.to_str()?;
    let group = Group::create(name, plan.memory_limit);
    if let Ok(None) = &group {
        log::warn!("ossfs's memory is not limited: this node has no memory controller for it");
    }
    group.unwrap_or_else(|e| {
        log::warn!("ossfs's memory is not limited: {e:#}");
        None
    })
}

/// Removes what this process has made, once the volume has ended.
fn clean_up(volume: &Path, keeper: &Keeper, outcome: &Outcome) {
    // A keeper that has gone keeps nothing.
    let _ = keeper.forget(FUSE);
    if *outcome != Outcome::Aborted
        && let Err(e) = remove_files(volume)
    {
        log::warn!("{e:#}");
    }
}

/// Removes what a process of the volume makes there, as far as it is there.
pub(crate) fn remove_files(volume: &Path) -> Result<()> {
    journal::remove(volume)?;
    for file in [SOCKET, failure::FILE] {
        root_only::remove(&volume.join(file))?;
    }
    for name in [SANDBOX, LIVE] {
        let path = volume.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
