//! Waiting until ossfs really serves: its start alone says little, it may exit with 0 and mount
//! nothing, or mount and give up.

use crate::mounts::directory;
use crate::ossfs::probe::{self, Health};
use crate::ossfs::{diagnosis, systemd};
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::process::{Process, ProcessId};
use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::statvfs::FsFlags;
use std::fs::File;
use std::io::PipeReader;
use std::os::fd::AsFd as _;
use std::process::Child;
use std::time::{Instant, SystemTime};

/// How often to look, in milliseconds, whether the daemon has ended on kernels without pidfds.
const LOOK_AGAIN_MS: u16 = 20;

/// A daemon on its way to serve a volume.
pub(crate) struct Starting<'a> {
    volume: &'a Volume,
    daemon: Daemon,
    since: Instant,
    clock: SystemTime,
}

/// What is known of the daemon's process.
pub(crate) enum Daemon {
    /// Our own child, whose exit status and words we learn.
    Child {
        process: Process,
        child: Child,
        output: PipeReader,
    },
    /// Another call or systemd started it.
    Found(Process),
    /// systemd starts it; it notes itself in the place of the one before.
    Awaited(Option<ProcessId>),
    /// It had ended before it could be looked at.
    Ended(i32),
}

impl Daemon {
    fn process(&self) -> Option<&Process> {
        match self {
            Self::Child { process, .. } | Self::Found(process) => Some(process),
            Self::Awaited(_) | Self::Ended(_) => None,
        }
    }
}

impl<'a> Starting<'a> {
    /// The daemon of `volume`, whose start begins now.
    pub(crate) fn of(volume: &'a Volume, daemon: Daemon) -> Self {
        Self {
            volume,
            daemon,
            since: Instant::now(),
            clock: SystemTime::now(),
        }
    }

    /// Waits until the volume's staging directory is served, and returns the flags of the mount.
    /// The error says, in the daemon's own words where there are some, why it is not by `deadline`.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<FsFlags> {
        self.wait_for_mount(deadline)?;
        match probe::health(&self.volume.staging(), deadline)? {
            Health::Serving(flags) if !self.has_ended()? => Ok(flags),
            Health::Serving(_) | Health::Dead => {
                // The mount's end comes before the daemon's.
                if let Some(process) = self.daemon.process() {
                    process.wait(deadline)?;
                }
                bail!("{}", self.ended())
            }
            Health::Unusable(how) => bail!("ossfs mounted the bucket, but {how}{}", self.hint()),
            Health::Unresponsive => bail!(
                "the store has not answered ossfs within {}{}",
                self.elapsed(),
                self.hint_or_url()
            ),
        }
    }

    fn wait_for_mount(&mut self, deadline: Deadline) -> Result<()> {
        // Both opened before the first look, so that no change in between is missed.
        let table = File::open("/proc/self/mountinfo").context("open /proc/self/mountinfo")?;
        let notes = self.watch_for_note()?;
        loop {
            self.look_for_note()?;
            // Until the daemon has noted itself, what is mounted there may be a dead one's: that is
            // taken away before.
            let is_noted = !matches!(self.daemon, Daemon::Awaited(_));
            if is_noted && directory::is_mount_point(&self.volume.staging())? {
                return Ok(());
            }
            if self.has_ended()? {
                bail!("{}", self.ended());
            }
            if deadline.has_passed() {
                bail!(
                    "ossfs has not mounted the bucket within {}{}",
                    self.elapsed(),
                    self.hint_or_url()
                );
            }
            // A change of the mount table is an exceptional condition (proc_pid_mounts(5)).
            let mut fds = vec![PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
            let mut timeout = deadline.poll_timeout();
            match (self.daemon.process(), &notes) {
                (Some(process), _) => match process.pidfd() {
                    Some(pidfd) => fds.push(PollFd::new(pidfd, PollFlags::POLLIN)),
                    None => timeout = timeout.min(PollTimeout::from(LOOK_AGAIN_MS)),
                },
                (None, Some(notes)) => fds.push(PollFd::new(notes.as_fd(), PollFlags::POLLIN)),
                (None, None) => {}
            }
            // Interrupted or not, the loop looks again.
            let _ = poll(&mut fds, timeout);
            if let Some(notes) = &notes {
                // None to read: it was another descriptor's turn.
                let _ = notes.read_events();
            }
        }
    }

    /// Tells when the daemon notes itself, if that is awaited.
    fn watch_for_note(&self) -> Result<Option<Inotify>> {
        if !matches!(self.daemon, Daemon::Awaited(_)) {
            return Ok(None);
        }
        let notes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .context("watch for the daemon's note")?;
        notes
            .add_watch(self.volume.directory(), AddWatchFlags::IN_MOVED_TO)
            .context("watch for the daemon's note")?;
        Ok(Some(notes))
    }

    fn look_for_note(&mut self) -> Result<()> {
        if let Daemon::Awaited(before) = &self.daemon
            && let Some(id) = self.volume.recorded_daemon()?
            && before.as_ref() != Some(&id)
        {
            self.daemon = match id.open()? {
                Some(process) => Daemon::Found(process),
                None => Daemon::Ended(id.pid()),
            };
        }
        Ok(())
    }

    fn has_ended(&self) -> Result<bool> {
        match &self.daemon {
            Daemon::Child { process, .. } | Daemon::Found(process) => Ok(!process.is_running()?),
            Daemon::Awaited(_) => Ok(false),
            Daemon::Ended(_) => Ok(true),
        }
    }

    /// That the daemon has ended, how and why.
    fn ended(&mut self) -> String {
        let status = match &mut self.daemon {
            Daemon::Child { child, .. } => child.try_wait().ok().flatten(),
            _ => None,
        };
        let how = match status.map(|status| (status, status.code())) {
            Some((_, Some(0))) => "ended without serving the mount (status 0)".to_owned(),
            Some((_, Some(code))) => format!("exited with status {code}"),
            Some((status, None)) => format!("was ended by a signal ({status})"),
            None => "has ended".to_owned(),
        };
        format!("ossfs {how} after {}{}", self.elapsed(), self.hint())
    }

    fn hint(&mut self) -> String {
        let said = match &mut self.daemon {
            Daemon::Child { output, .. } => diagnosis::read(output),
            Daemon::Found(process) => systemd::output(process.pid(), self.clock),
            Daemon::Ended(pid) => systemd::output(*pid, self.clock),
            Daemon::Awaited(_) => String::new(),
        };
        diagnosis::explain(&said)
            .map(|hint| format!(": {hint}"))
            .unwrap_or_default()
    }

    /// ossfs retries in silence for minutes where an endpoint does not answer.
    fn hint_or_url(&mut self) -> String {
        match self.hint() {
            hint if hint.is_empty() => ": check url, and that this node reaches it".to_owned(),
            hint => hint,
        }
    }

    fn elapsed(&self) -> String {
        format!("{:.1} s", self.since.elapsed().as_secs_f64())
    }
}
