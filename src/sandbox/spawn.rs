//! The side of the process that wants ossfs run: starts the builder, hears how far it came, and how
//! ossfs ended.

use super::builder::OWN_PID_NAMESPACE;
use super::channel::{Descriptors, Mapped, Report, Start, receive, send, send_start};
use super::identity::map_ids;
use super::spec::{BUILDER, End, Mode, Spec};
use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, WaitOptions, waitpid};
use std::io::{self, PipeReader, pipe};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Time for one step of the builder. It mounts local directories, which takes milliseconds; one on a
/// server that is gone may never answer.
const STEP: Duration = Duration::from_secs(20);

/// ossfs, running as a [`Spec`] says. Dropped, it is ended.
pub struct Sandboxed {
    child: Child,
    control: UnixStream,
    life: PipeReader,
    /// How many parents are between `child` and ossfs.
    depth: usize,
    left_out: Vec<String>,
    user_namespace: bool,
    end: Option<End>,
}

/// Starts ossfs with `fuse` as its standard input and `output` as both its outputs, and returns once
/// it has been executed: what the program itself makes of its arguments is not known yet. An error
/// in one line says why it could not be; nothing is left running or mounted then.
///
/// The caller is root. Where the node has no PID namespaces, and with [`Mode::Off`], ossfs is ended
/// together with the *thread* that calls this (`PR_SET_PDEATHSIG` of prctl(2)); otherwise with the
/// process.
pub fn spawn(spec: &Spec, fuse: OwnedFd, output: OwnedFd) -> Result<Sandboxed> {
    let (control, theirs) = UnixStream::pair().context("make a pair of sockets")?;
    control.set_read_timeout(Some(STEP))?;
    control.set_write_timeout(Some(STEP))?;
    let (reader, life) = pipe().context("make a pipe")?;
    let (child, depth) = start(spec, theirs)?;
    let mut sandboxed = Sandboxed {
        child,
        control,
        life: reader,
        depth,
        left_out: Vec::new(),
        user_namespace: false,
        end: None,
    };
    let start = Start {
        spec: spec.clone(),
        time_zone: std::env::var("TZ").ok(),
    };
    let life = life.into();
    let descriptors = Descriptors { fuse, output, life };
    send_start(&sandboxed.control, &start, &descriptors).context("start the sandbox")?;
    drop(descriptors);
    sandboxed.follow(spec.uid)?;
    sandboxed.join(&spec.groups);
    Ok(sandboxed)
}

/// Starts the builder, as the first process of a new PID namespace where that can be. Returns also
/// how many parents ossfs will have up to this process's child.
fn start(spec: &Spec, theirs: UnixStream) -> Result<(Child, usize)> {
    let mut command = Command::new(&spec.helper);
    command
        .arg0(BUILDER)
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if spec.mode == Mode::Off {
        return Ok((spawn_builder(&mut command)?, 0));
    }
    // The namespace is for the children of one thread, for good: that thread does nothing else.
    let forked = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWPID)
                // With a uid std forks; vfork(2) is refused there by kernels before 3.12.
                .map(|()| spawn_builder(command.uid(0)))
        });
        thread.join()
    });
    match forked.map_err(|_| anyhow!("the thread that starts the sandbox panicked"))? {
        Ok(child) => Ok((child?, 1)),
        // Kernels before 3.13 have it only for processes with one thread.
        Err(Errno::EINVAL) => Ok((spawn_builder(command.arg(OWN_PID_NAMESPACE))?, 2)),
        Err(_) => Ok((spawn_builder(&mut command)?, 0)),
    }
}

fn spawn_builder(command: &mut Command) -> Result<Child> {
    command
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))
}

impl Sandboxed {
    /// Hears the builder until ossfs runs.
    fn follow(&mut self, uid: u32) -> Result<()> {
        let watched = loop {
            match self.report()? {
                Some(Report::MapIds) => {
                    // One that was to have a PID namespace, and could not, has no child.
                    let own = self.child.id();
                    let builder = descendant(own, self.depth.saturating_sub(1)).unwrap_or(own);
                    let result = map_ids(builder, uid);
                    send(&self.control, &Mapped(result.is_ok()))?;
                    result?;
                }
                Some(Report::Built {
                    left_out,
                    user_namespace,
                    watched,
                }) => {
                    self.left_out = left_out;
                    self.user_namespace = user_namespace;
                    break watched;
                }
                other => return Err(failure(other)),
            }
        };
        if !watched {
            self.depth = 0;
        }
        match self.report()? {
            Some(Report::Started) if watched => Ok(()),
            None if !watched => Ok(()),
            other => Err(failure(other)),
        }
    }

    /// Takes ossfs and its ancestors into the control groups, in a thread: the kernel waits for some ten
    /// milliseconds before it moves a process, and ossfs takes longer than that until it talks to its
    /// store. What cannot be done is logged.
    fn join(&self, groups: &[PathBuf]) {
        if groups.is_empty() {
            return;
        }
        let pids: Vec<u32> = (0..=self.depth)
            .filter_map(|depth| descendant(self.child.id(), depth))
            .collect();
        let groups = groups.to_vec();
        let join = move || {
            for (procs, pid) in groups
                .iter()
                .flat_map(|g| pids.iter().map(move |pid| (g, pid)))
            {
                match std::fs::write(procs, pid.to_string()) {
                    // It has ended already.
                    Err(e) if e.raw_os_error() != Some(Errno::ESRCH as i32) => {
                        log::warn!(
                            "ossfs's memory is not limited: join {}: {e}",
                            procs.display()
                        );
                    }
                    _ => {}
                }
            }
        };
        if let Err(e) = std::thread::Builder::new().spawn(join) {
            log::warn!("ossfs's memory is not limited: start a thread: {e}");
        }
    }

    fn report(&self) -> Result<Option<Report>> {
        receive(&self.control).context("receive a report from the sandbox")
    }

    /// What this node could not do, in a few words each.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Whether the daemon's uid is 0 inside. If not, it shows its own uid in attributes.
    pub fn uses_user_namespace(&self) -> bool {
        self.user_namespace
    }

    /// The process that was started: ossfs, or an ancestor of it that ends when it does.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// ossfs itself, as this process's PID namespace numbers it; nothing once it has ended.
    pub fn daemon_pid(&self) -> Option<u32> {
        descendant(self.child.id(), self.depth)
    }

    /// Becomes readable, or hung up, when ossfs has ended: then [`wait`](Self::wait) takes no time.
    pub fn ended_fd(&self) -> BorrowedFd<'_> {
        self.life.as_fd()
    }

    /// How ossfs ended; nothing while it runs.
    pub fn try_wait(&mut self) -> io::Result<Option<End>> {
        match self.child.try_wait()? {
            Some(status) => Ok(Some(self.end(status))),
            None => Ok(None),
        }
    }

    /// Waits until ossfs and all that it started have ended, and says how ossfs did.
    pub fn wait(&mut self) -> io::Result<End> {
        let status = self.child.wait()?;
        Ok(self.end(status))
    }

    /// What the builder reported, or its own end: it has become ossfs, or both were killed.
    fn end(&mut self, status: ExitStatus) -> End {
        let status = || match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Killed(signal.unwrap_or(0)),
        };
        *self
            .end
            .get_or_insert_with(|| match receive(&self.control) {
                Ok(Some(Report::Ended(end))) => end,
                _ => status(),
            })
    }

    /// Ends ossfs and all that it started, by SIGKILL. One that has ended is no error.
    pub fn kill(&mut self) {
        // One that has ended is what was wanted. A watcher that is no child of this process ends
        // when this end of the channel is closed.
        let _ = self.child.kill();
        let _ = self.control.shutdown(Shutdown::Write);
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        self.kill();
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // One that hangs in the kernel ends when that lets go of it.
        let child = Pid::from_child(&self.child);
        let reap = move || waitpid(Some(child), WaitOptions::empty());
        // Without a thread it stays a zombie until this process ends.
        let _ = std::thread::Builder::new().spawn(reap);
    }
}

/// Why a report is not the one that was due.
fn failure(report: Option<Report>) -> anyhow::Error {
    match report {
        None => anyhow!("the process that builds the sandbox ended"),
        Some(Report::Failed(why)) => anyhow!(why),
        Some(report) => anyhow!("the process that builds the sandbox reported {report:?}"),
    }
}

/// The process that is so many generations younger than `pid`, each of which has one child.
fn descendant(pid: u32, generations: usize) -> Option<u32> {
    (0..generations).try_fold(pid, |pid, _| {
        // proc_pid_task(5); what has ended has none.
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(path).ok()?;
        children.split_whitespace().next()?.parse().ok()
    })
}
