//! A process that is not necessarily a child: distinguished from a later one of the same number
//! by its start time, and waited for through a pidfd where the kernel has them (Linux 5.3).

use crate::sys::deadline::Deadline;
use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::process::Child;
use std::time::Duration;

/// How often to check whether a process has ended, on kernels without pidfds: they have no event.
const CHECK_AGAIN: Duration = Duration::from_millis(20);

/// A clock tick in milliseconds: 1/USER_HZ of a second, which is 100 on all that kubelet runs on.
const TICK: u64 = 10;

/// The longest beginning of a process's command line that is read, in bytes: a process makes it as long
/// as it likes (PR_SET_MM_MAP, prctl(2)). Those of ossfs and of kubelet are far shorter.
pub const MAX_COMMAND_LINE: u64 = 128 * 1024;

/// What identifies one process among all that ever ran on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessId {
    pid: i32,
    /// Clock ticks since boot at its start (field 22 of proc_pid_stat(5)).
    started: u64,
    boot: String,
}

impl ProcessId {
    /// The calling process; it stays the same across exec(3).
    pub fn own() -> Result<Self> {
        Self::of_pid(Pid::this().as_raw())?.context("read /proc/self/stat")
    }

    /// The process that has the number `pid` now; `None` if no process has.
    pub fn of_pid(pid: i32) -> Result<Option<Self>> {
        let Some((started, _)) = stat(pid) else {
            return Ok(None);
        };
        let boot = boot_id()?;
        Ok(Some(Self { pid, started, boot }))
    }

    /// One line of text that `parse` takes back.
    pub fn render(&self) -> String {
        format!("{} {} {}\n", self.pid, self.started, self.boot)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_whitespace();
        Some(Self {
            pid: fields.next()?.parse().ok()?,
            started: fields.next()?.parse().ok()?,
            boot: fields.next()?.to_owned(),
        })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How much later than `earlier` it started, to a clock tick (10 ms); `None` if it did not start
    /// later in the same boot.
    pub(crate) fn started_after(&self, earlier: &Self) -> Option<Duration> {
        let ticks = self.started.checked_sub(earlier.started)?;
        (self.boot == earlier.boot).then_some(Duration::from_millis(ticks.saturating_mul(TICK)))
    }

    /// The process if it is still running; `None` once it has ended, also if its parent has
    /// not waited for it yet.
    pub fn open(&self) -> Result<Option<Process>> {
        // Checked after opening: a later process of the same number is not mistaken for it.
        let process = self.clone().attach();
        Ok(process.is_running()?.then_some(process))
    }

    fn attach(self) -> Process {
        let pidfd = rustix::process::Pid::from_raw(self.pid)
            .map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        Process {
            id: self,
            // Without pidfds (or without the process) /proc is read.
            pidfd: pidfd.and_then(Result::ok),
        }
    }
}

/// A process that was running when it was opened.
pub struct Process {
    id: ProcessId,
    pidfd: Option<OwnedFd>,
}

impl Process {
    /// The process of a child that has not been waited for; it may have ended already.
    pub fn of_child(child: &Child) -> Result<Self> {
        let pid = child.id().cast_signed();
        let id = ProcessId::of_pid(pid)?.with_context(|| format!("read /proc/{pid}/stat"))?;
        Ok(id.attach())
    }

    pub fn pid(&self) -> i32 {
        self.id.pid
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> Result<bool> {
        let running = stat(self.id.pid).is_some_and(|(started, state)| {
            started == self.id.started && !matches!(state, 'Z' | 'X')
        });
        Ok(running && self.id.boot == boot_id()?)
    }

    /// The descriptor that poll(2) finds readable once the process has ended.
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(OwnedFd::as_fd)
    }

    /// Waits for its end. False if it still runs at `deadline`.
    pub fn wait(&self, deadline: Deadline) -> Result<bool> {
        while self.is_running()? {
            if deadline.has_passed() {
                return Ok(false);
            }
            match self.pidfd() {
                Some(fd) => {
                    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
                    // Interrupted or not, the loop checks again.
                    let _ = poll(&mut fds, deadline.poll_timeout());
                }
                None => std::thread::sleep(CHECK_AGAIN.min(deadline.remaining())),
            }
        }
        Ok(true)
    }

    /// Asks it to end, with SIGTERM. One that has ended already is no error.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM, Signal::SIGTERM);
    }

    /// Ends it with SIGKILL. One that has ended already is no error.
    pub fn kill(&self) {
        self.signal(rustix::process::Signal::KILL, Signal::SIGKILL);
    }

    fn signal(&self, signal: rustix::process::Signal, same: Signal) {
        // Gone meanwhile: that is what was wanted.
        match &self.pidfd {
            Some(fd) => {
                let _ = pidfd_send_signal(fd, signal);
            }
            None => {
                let _ = kill(Pid::from_raw(self.id.pid), same);
            }
        }
    }
}

/// Start time and state of the process `pid`.
fn stat(pid: i32) -> Option<(u64, char)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&String::from_utf8_lossy(&text))
}

/// The command's name is in brackets and may contain brackets and spaces itself.
fn parse_stat(text: &str) -> Option<(u64, char)> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.nth(18)?.parse().ok()?, state))
}

/// What distinguishes this boot of the node from every other.
pub fn boot_id() -> Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("read /proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// The processes of root, named as one of `names`, that have `argument` as one of their arguments.
pub fn with_argument(names: &[&str], argument: &str) -> Vec<ProcessId> {
    let is_it = |found: &str| found == argument;
    daemons(names, is_it)
        .filter_map(|(pid, _)| ProcessId::of_pid(pid).ok()?)
        .collect()
}

/// The numbers of the processes of root that are named as one of `names`.
pub(crate) fn named(names: &[&str]) -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == 0)
                && std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| names.contains(&name.trim()))
        })
}

/// Whether the process `pid` is in the PID, mount and user namespace of the process `other`. A
/// container has at least a mount namespace of its own.
pub(crate) fn shares_namespaces(pid: i32, other: i32) -> bool {
    ["pid", "mnt", "user"].iter().all(|kind| {
        let namespace = |pid| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        namespace(pid).is_some_and(|found| Some(found) == namespace(other))
    })
}

/// The processes of root, named as one of `names`, that have an argument with `part` in it, and that
/// argument.
pub fn with_argument_in(names: &[&str], part: &str) -> Vec<(i32, String)> {
    daemons(names, |argument| argument.contains(part)).collect()
}

fn daemons(names: &[&str], is_it: impl Fn(&str) -> bool) -> impl Iterator<Item = (i32, String)> {
    named(names).filter_map(move |pid| {
        let mut line = Vec::new();
        let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
        file.take(MAX_COMMAND_LINE).read_to_end(&mut line).ok()?;
        let line = String::from_utf8_lossy(&line);
        let argument = line.split('\0').find(|argument| is_it(argument))?;
        Some((pid, argument.to_owned()))
    })
}

/// Closes every descriptor but stdin, stdout and stderr, whoever opened it. To be called while
/// nothing in this process owns one: at its start, or right before exec(3). A descriptor of
/// kubelet's pipe would keep kubelet waiting for as long as a child that inherits it runs.
pub fn close_inherited() -> Result<()> {
    let path = "/proc/self/fd";
    let numbers: Vec<i32> = std::fs::read_dir(path)
        .with_context(|| format!("list {path}"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // The listing's own descriptor is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Process, ProcessId, parse_stat, shares_namespaces, with_argument};
    use crate::sys::deadline::Deadline;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    #[test]
    fn reads_the_start_time_after_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(
            parse_stat(&format!("12 (a) b) (c) {fields}")),
            Some((4711, 'S'))
        );
        assert_eq!(parse_stat("12 (a"), None);
        assert_eq!(parse_stat("12 (a) S 1 2"), None);
    }

    #[test]
    fn an_identity_survives_as_text() {
        let own = ProcessId::own().unwrap();
        assert_eq!(ProcessId::parse(&own.render()).as_ref(), Some(&own));
        assert!(own.open().unwrap().is_some());
        assert_eq!(ProcessId::parse("12 x y"), None);
    }

    #[test]
    fn another_start_time_or_boot_is_another_process() {
        let own = ProcessId::own().unwrap();
        let earlier = ProcessId {
            started: own.started - 1,
            ..own.clone()
        };
        assert!(earlier.open().unwrap().is_none());
        let before = ProcessId {
            boot: "other".to_owned(),
            ..own
        };
        assert!(before.open().unwrap().is_none());
    }

    #[test]
    fn a_process_with_a_mount_namespace_of_its_own_shares_not_all() {
        let own = std::process::id().cast_signed();
        assert!(shares_namespaces(own, own));
        assert!(!shares_namespaces(i32::MAX, own));
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", "echo; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The shell runs, so its namespace has been made.
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let found = shares_namespaces(child.id().cast_signed(), own);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!found);
    }

    #[test]
    fn tells_how_much_later_a_process_started() {
        let id = |text| ProcessId::parse(text).unwrap();
        let later = id("7 1010 boot");
        for (earlier, after) in [
            ("6 1010 boot", Some(0)),
            ("8 1002 boot", Some(80)),
            ("8 1011 boot", None),
            ("8 1002 other", None),
        ] {
            let after = after.map(Duration::from_millis);
            assert_eq!(later.started_after(&id(earlier)), after, "{earlier}");
        }
    }

    #[test]
    fn waits_for_the_end_of_a_process() {
        let mut child = Command::new("sleep").arg("86399.75").spawn().unwrap();
        let process = Process::of_child(&child).unwrap();
        let id = process.id.clone();
        assert!(
            !process
                .wait(Deadline::after(Duration::from_millis(10)))
                .unwrap()
        );
        assert_eq!(ProcessId::of_pid(id.pid()).unwrap().as_ref(), Some(&id));
        assert_eq!(ProcessId::of_pid(i32::MAX).unwrap(), None);
        if nix::unistd::geteuid().is_root() {
            let found = with_argument(&["sleep"], "86399.75");
            assert_eq!(found, std::slice::from_ref(&id));
            assert_eq!(with_argument(&["s3fs"], "86399.75"), []);
        }
        process.kill();
        assert!(
            process
                .wait(Deadline::after(Duration::from_secs(60)))
                .unwrap()
        );
        assert!(id.open().unwrap().is_none());
        child.wait().unwrap();
    }
}
