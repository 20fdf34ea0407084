//! Waiting until ossfs really serves: that it was started is not enough, it may exit with 0 without
//! mounting, or mount and exit.

use crate::descriptor::Descriptor;
use crate::mounts::directory;
use crate::ossfs::probe::{self, Health};
use crate::ossfs::{diagnosis, systemd};
use crate::state::start::Start;
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

/// How often to check, in milliseconds, whether the daemon has exited on kernels without pidfds.
const CHECK_AGAIN_MS: u16 = 20;

/// A daemon that is about to serve a volume.
pub(crate) struct Starting<'a> {
    volume: &'a Volume,
    descriptor: &'static Descriptor,
    daemon: Daemon,
    since: Instant,
    clock: SystemTime,
}

/// What is known of the daemon's process.
pub(crate) enum Daemon {
    /// Our own child, whose exit status and output are known.
    Child {
        process: Process,
        child: Child,
        output: PipeReader,
    },
    /// Another call or systemd started it.
    Found(Process),
    /// systemd starts it; it replaces the record of the previous one, given here.
    Awaited(Option<ProcessId>),
    /// It had exited before it could be opened.
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
    /// The daemon of `volume`, which is started now as `start` describes.
    pub(crate) fn of(volume: &'a Volume, start: &Start, daemon: Daemon) -> Self {
        Self {
            volume,
            descriptor: Descriptor::of_program(&start.program),
            daemon,
            since: Instant::now(),
            clock: SystemTime::now(),
        }
    }

    /// Waits until the volume's staging directory is served, and returns the flags of the mount.
    /// The error gives the reason if it is not by `deadline`, from the daemon's own output if there is
    /// some.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<FsFlags> {
        self.wait_for_mount(deadline)?;
        match probe::health(&self.volume.staging(), deadline)? {
            Health::Serving(flags) if !self.has_ended()? => Ok(flags),
            Health::Serving(_) | Health::Dead => {
                // The mount ends before the daemon exits.
                if let Some(process) = self.daemon.process() {
                    process.wait(deadline)?;
                }
                bail!("{}", self.exit_message())
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
        // Both opened before the first check, so that no change in between is missed.
        let table = File::open("/proc/self/mountinfo").context("open /proc/self/mountinfo")?;
        let records = self.watch_for_record()?;
        loop {
            self.check_for_record()?;
            // Until the daemon has recorded itself, a dead mount of the previous one may be there:
            // that is unmounted first.
            let is_recorded = !matches!(self.daemon, Daemon::Awaited(_));
            if is_recorded && directory::is_mount_point(&self.volume.staging())? {
                return Ok(());
            }
            if self.has_ended()? {
                bail!("{}", self.exit_message());
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
            match (self.daemon.process(), &records) {
                (Some(process), _) => match process.pidfd() {
                    Some(pidfd) => fds.push(PollFd::new(pidfd, PollFlags::POLLIN)),
                    None => timeout = timeout.min(PollTimeout::from(CHECK_AGAIN_MS)),
                },
                (None, Some(records)) => fds.push(PollFd::new(records.as_fd(), PollFlags::POLLIN)),
                (None, None) => {}
            }
            // Interrupted or not, the loop checks again.
            let _ = poll(&mut fds, timeout);
            if let Some(records) = &records {
                // Nothing to read: another descriptor was ready.
                let _ = records.read_events();
            }
        }
    }

    /// Watches for the daemon's record, if that is awaited.
    fn watch_for_record(&self) -> Result<Option<Inotify>> {
        if !matches!(self.daemon, Daemon::Awaited(_)) {
            return Ok(None);
        }
        let records = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .context("watch for the daemon's record")?;
        records
            .add_watch(self.volume.directory(), AddWatchFlags::IN_MOVED_TO)
            .context("watch for the daemon's record")?;
        Ok(Some(records))
    }

    fn check_for_record(&mut self) -> Result<()> {
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

    /// That the daemon has exited, how and why.
    fn exit_message(&mut self) -> String {
        let status = match &mut self.daemon {
            Daemon::Child { child, .. } => child.try_wait().ok().flatten(),
            _ => None,
        };
        let how = match status.map(|status| (status, status.code())) {
            Some((_, Some(0))) => "exited without serving the mount (status 0)".to_owned(),
            Some((_, Some(code))) => format!("exited with status {code}"),
            Some((status, None)) => format!("was killed by a signal ({status})"),
            None => "has exited".to_owned(),
        };
        format!("ossfs {how} after {}{}", self.elapsed(), self.hint())
    }

    fn hint(&mut self) -> String {
        let output = match &mut self.daemon {
            Daemon::Child { output, .. } => diagnosis::read(output),
            Daemon::Found(process) => systemd::output(process.pid(), self.clock),
            Daemon::Ended(pid) => systemd::output(*pid, self.clock),
            Daemon::Awaited(_) => String::new(),
        };
        diagnosis::explain(&self.descriptor.output, &output)
            .map(|hint| format!(": {hint}"))
            .unwrap_or_default()
    }

    /// ossfs retries for minutes without any output if an endpoint does not answer.
    fn hint_or_url(&mut self) -> String {
        match self.hint() {
            hint if hint.is_empty() => {
                ": check the url, and that this node can reach it".to_owned()
            }
            hint => hint,
        }
    }

    fn elapsed(&self) -> String {
        format!("{:.1} s", self.since.elapsed().as_secs_f64())
    }
}
