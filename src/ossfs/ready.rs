//! Waiting until ossfs really serves: its start alone says little, it may exit with 0 and mount
//! nothing, or mount and give up.

use crate::deadline::Deadline;
use crate::mounts::directory;
use crate::ossfs::probe::{self, Health};
use crate::ossfs::words;
use crate::process::Process;
use crate::volume::Volume;
use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statvfs::FsFlags;
use std::fs::File;
use std::io::PipeReader;
use std::os::fd::AsFd as _;
use std::process::Child;
use std::time::Instant;

/// How often to look, in milliseconds, whether the daemon has ended on kernels without pidfds.
const LOOK_AGAIN_MS: u16 = 20;

/// A daemon on its way to serve a volume.
pub(crate) struct Starting<'a> {
    pub(crate) volume: &'a Volume,
    pub(crate) process: Process,
    /// The daemon as our own child, whose exit status we learn; nothing if another call started it.
    pub(crate) child: Option<(Child, PipeReader)>,
    pub(crate) since: Instant,
}

impl Starting<'_> {
    /// Waits until the volume's staging directory is served, and returns the flags of the mount.
    /// The error says, in the daemon's own words where there are some, why it is not by `deadline`.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<FsFlags> {
        self.wait_for_mount(deadline)?;
        match probe::health(&self.volume.staging(), deadline)? {
            Health::Serving(flags) if self.process.is_running()? => Ok(flags),
            Health::Serving(_) | Health::Dead => {
                // The mount's end comes before the daemon's.
                self.process.wait(deadline)?;
                bail!("{}", self.ended())
            }
            Health::Unusable(how) => bail!("ossfs mounted the bucket, but {how}{}", self.hint()),
            Health::Silent => bail!(
                "the store has not answered ossfs within {}{}",
                self.elapsed(),
                self.hint_or_url()
            ),
        }
    }

    fn wait_for_mount(&mut self, deadline: Deadline) -> Result<()> {
        // Opened before the first look, so that no change in between is missed.
        let table = File::open("/proc/self/mountinfo").context("open /proc/self/mountinfo")?;
        loop {
            if directory::is_mount_point(&self.volume.staging())? {
                return Ok(());
            }
            if !self.process.is_running()? {
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
            match self.process.pidfd() {
                Some(pidfd) => fds.push(PollFd::new(pidfd, PollFlags::POLLIN)),
                None => timeout = timeout.min(PollTimeout::from(LOOK_AGAIN_MS)),
            }
            // Interrupted or not, the loop looks again.
            let _ = poll(&mut fds, timeout);
        }
    }

    /// That the daemon has ended, how and why.
    fn ended(&mut self) -> String {
        let how = match self.child.as_mut().map(|(child, _)| child.try_wait()) {
            Some(Ok(Some(status))) => match status.code() {
                Some(0) => "ended without serving the mount (status 0)".to_owned(),
                Some(code) => format!("exited with status {code}"),
                None => format!("was ended by a signal ({status})"),
            },
            _ => "has ended".to_owned(),
        };
        format!("ossfs {how} after {}{}", self.elapsed(), self.hint())
    }

    fn hint(&mut self) -> String {
        self.child
            .as_mut()
            .and_then(|(_, output)| words::explain(&words::read(output)))
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
