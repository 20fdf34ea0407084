//! The systemd-nspawn process of a node.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::node::host::{self, last_lines};
use crate::node::state::{self, State};
use crate::process::Pidfd;

const BOOT: Duration = Duration::from_secs(90);

/// What the waiting thread adds to the messages of systemd-nspawn.
const ENDED: &str = "ENDED";

/// A running systemd-nspawn. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub(crate) struct Nspawn {
    process: Pidfd,
    keeper: Option<JoinHandle<()>>,
}

impl Nspawn {
    /// Starts systemd-nspawn and waits until the systemd inside has booted; returns it with the id of PID 1.
    pub(crate) fn boot(state: &State, image: &Path, options: &[OsString]) -> Result<(Self, u32)> {
        let socket = state.file("notify");
        let messages =
            UnixDatagram::bind(&socket).with_context(|| format!("bind {}", socket.display()))?;
        let nspawn = Self::start(state, command(state, image, options)?, &socket)?;
        let pid1 = booted(&messages).with_context(|| {
            let log = fs::read_to_string(state.file("console")).unwrap_or_default();
            format!(
                "boot the node; the end of its console:\n{}",
                last_lines(&log)
            )
        })?;
        Ok((nspawn, pid1))
    }

    fn start(state: &State, mut command: Command, socket: &Path) -> Result<Self> {
        let gate = state::create_locked(&state.file("gate"))?;
        let (send, started) = mpsc::channel();
        let socket = socket.to_owned();
        // The death signal comes with the end of the thread that started the process, so that thread stays.
        let keeper =
            thread::Builder::new()
                .name("nspawn".to_owned())
                .spawn(move || match spawn(&mut command) {
                    Ok((mut child, process)) => {
                        send.send(Ok((process, child.id()))).ok();
                        child.wait().ok();
                        UnixDatagram::unbound()
                            .and_then(|sender| sender.send_to(ENDED.as_bytes(), &socket))
                            .ok();
                    }
                    Err(error) => {
                        send.send(Err(error)).ok();
                    }
                })?;
        let (process, pid) = started.recv().context("the thread of systemd-nspawn")??;
        let nspawn = Self {
            process,
            keeper: Some(keeper),
        };
        state.cgroups().adopt(pid)?;
        gate.unlock().context("let systemd-nspawn start")?;
        Ok(nspawn)
    }

    /// Waits for the end and tells whether it came in time.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        self.process.wait(timeout)
    }
}

impl Drop for Nspawn {
    fn drop(&mut self) {
        self.process.kill();
        if let Some(keeper) = self.keeper.take() {
            keeper.join().ok();
        }
    }
}

fn spawn(command: &mut Command) -> Result<(Child, Pidfd)> {
    let mut child = command.spawn().context("start systemd-nspawn")?;
    match Pidfd::open(child.id()) {
        Ok(process) => Ok((child, process)),
        Err(error) => {
            child
                .kill()
                .and_then(|()| child.wait())
                .context("end systemd-nspawn")?;
            Err(error)
        }
    }
}

/// The command holds at the gate until it is in the cgroups of the node; every step keeps the process id.
fn command(state: &State, image: &Path, options: &[OsString]) -> Result<Command> {
    let console = File::create(state.file("console")).context("make the console log")?;
    let mut command = Command::new(host::program("setpriv")?);
    command.args(["--pdeathsig", "KILL"]);
    command
        .arg(host::program("flock")?)
        .arg("--no-fork")
        .arg(state.file("gate"));
    command
        .arg(host::program("systemd-nspawn")?)
        .arg(option("--directory=", image))
        .arg(format!("--machine={}", state.name()))
        // Read-only is for the lock on the image, which nodes then share; volatile puts a tmpfs on top.
        .args(["--read-only", "--volatile=overlay", "--settings=no"])
        .args([
            "--register=no",
            "--keep-unit",
            "--kill-signal=SIGRTMIN+3",
            "--notify-ready=yes",
        ])
        .args([
            "--console=pipe",
            "--link-journal=no",
            "--timezone=off",
            "--bind=/dev/fuse",
        ])
        .args(options)
        // Not --boot: so PID 1 ends with systemd-nspawn even if that is killed.
        .args([
            "/usr/bin/setpriv",
            "--pdeathsig",
            "KILL",
            "/usr/lib/systemd/systemd",
        ])
        .env_clear()
        .env("PATH", host::PATH)
        .env("NOTIFY_SOCKET", state.file("notify"))
        .stdin(Stdio::null())
        .stdout(console.try_clone().context("share the console log")?)
        .stderr(console);
    Ok(command)
}

/// Puts an option and its path together.
pub(crate) fn option(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push(path);
    text
}

/// Reads messages until the one that says that all of the boot is done.
fn booted(messages: &UnixDatagram) -> Result<u32> {
    let deadline = Instant::now() + BOOT;
    let mut buffer = [0; 4096];
    let mut leader = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "not booted after {} s", BOOT.as_secs());
        messages.set_read_timeout(Some(left))?;
        let length = messages
            .recv(&mut buffer)
            .context("wait for the message that the node has booted")?;
        for line in String::from_utf8_lossy(&buffer[..length]).lines() {
            match line.split_once('=') {
                Some(("X_NSPAWN_LEADER_PID", pid)) => {
                    leader = Some(pid.parse().context("the id of PID 1")?)
                }
                Some(("READY", "1")) => {
                    return leader.context("systemd-nspawn did not tell the id of PID 1");
                }
                None if line == ENDED => bail!("systemd-nspawn ended"),
                _ => {}
            }
        }
    }
}
