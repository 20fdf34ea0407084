//! A running node and what tests do with it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::node::host;
use crate::node::image::image_with;
use crate::node::nspawn::{Nspawn, option};
use crate::node::state::State;
use crate::process::Pidfd;

/// How long an orderly shutdown may take: longer than systemd waits before it kills a unit.
const POWER_OFF: Duration = Duration::from_secs(120);

/// How long systemd-nspawn may take to end after its PID 1.
const END: Duration = Duration::from_secs(20);

/// What a node gets from its test.
#[derive(Debug, Clone, Default)]
pub struct Config {
    options: Vec<OsString>,
    packages: Vec<String>,
    every_controller: bool,
}

impl Config {
    /// A node without anything of the test.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a file or directory of the host appear inside, writable. Mounts made on it inside stay inside.
    #[must_use]
    pub fn bind(self, host: impl AsRef<Path>, inside: impl AsRef<Path>) -> Self {
        self.mount("--bind=", host.as_ref(), inside.as_ref())
    }

    /// Makes a file or directory of the host appear inside, read-only.
    #[must_use]
    pub fn bind_read_only(self, host: impl AsRef<Path>, inside: impl AsRef<Path>) -> Self {
        self.mount("--bind-ro=", host.as_ref(), inside.as_ref())
    }

    /// Sets the host name inside; otherwise it is a unique name.
    #[must_use]
    pub fn hostname(mut self, name: &str) -> Self {
        self.options.push(format!("--hostname={name}").into());
        self
    }

    /// Installs these packages too, with what they depend on; each set of packages has an image of its own.
    #[must_use]
    pub fn packages(mut self, names: &[&str]) -> Self {
        self.packages = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Gives the node a network of its own, with a loopback interface and nothing else.
    #[must_use]
    pub fn own_network(mut self) -> Self {
        self.options.push("--private-network".into());
        self
    }

    /// Makes it a node that can run containers: a group of its own in the hierarchy of every controller, all
    /// capabilities, the system calls that a container runtime needs, and `/proc/sys` writable.
    #[must_use]
    pub fn containers(mut self) -> Self {
        self.options.push("--capability=all".into());
        self.options
            .push("--system-call-filter=@keyring bpf".into());
        self.every_controller = true;
        self
    }

    /// Mounts an empty file system in memory, on which overlayfs can be stacked.
    #[must_use]
    pub fn memory(mut self, inside: impl AsRef<Path>) -> Self {
        self.options
            .push(option("--tmpfs=", &escape(inside.as_ref())));
        self
    }

    fn mount(mut self, kind: &str, host: &Path, inside: &Path) -> Self {
        let mut text = option(kind, &escape(host));
        text.push(":");
        text.push(escape(inside));
        self.options.push(text);
        self
    }
}

/// A colon separates the paths of a mount option.
fn escape(path: &Path) -> PathBuf {
    path.to_string_lossy()
        .replace('\\', "\\\\")
        .replace(':', "\\:")
        .into()
}

/// A booted node: a container whose PID 1 is systemd.
///
/// It has the network of the host, unless [`Config::own_network`] says otherwise, and `/dev/fuse`; FUSE mounts, bind mounts and mount namespaces work inside, and no
/// mount made inside reaches the host. What it writes is kept in memory, except in directories that [`Config::bind`]
/// shares.
///
/// Dropping it kills all its processes at once and removes its control groups and its files. If the test process dies
/// without that, the node dies with it, and the next [`Node::boot`] of any process removes what is left.
#[derive(Debug)]
pub struct Node {
    pid1: u32,
    leader: Pidfd,
    nspawn: Nspawn,
    // After the fields above: it removes what they use.
    _state: State,
}

impl Node {
    /// Boots a node, making the image first if needed (`image.rs`), and returns when systemd has started all of it.
    ///
    /// # Errors
    ///
    /// If the image cannot be made, or systemd-nspawn does not start or does not finish the boot in time; then the
    /// message has the end of the console. Nothing of the node is left behind.
    pub fn boot(config: Config) -> Result<Self> {
        let packages: Vec<&str> = config.packages.iter().map(String::as_str).collect();
        let image = image_with(&packages)?;
        let state = State::create(config.every_controller)?;
        let (nspawn, pid1) = Nspawn::boot(&state, &image, &config.options)?;
        let legacy_memory = state.cgroups().legacy_memory();
        let node = Self {
            pid1,
            leader: Pidfd::open(pid1)?,
            nspawn,
            _state: state,
        };
        if config.every_controller {
            node.enable_controllers()?;
        } else if legacy_memory {
            node.enable_memory_controller()?;
        }
        Ok(node)
    }

    /// systemd-nspawn hands down only the hierarchy of systemd; systemd looks at the others when it starts.
    fn enable_memory_controller(&self) -> Result<()> {
        self.run(&["mount", "-o", "remount,bind,rw", "/sys/fs/cgroup/memory"])?;
        self.systemctl(&["daemon-reexec"])?;
        Ok(())
    }

    /// systemd-nspawn leaves the hierarchies of the controllers, and `/proc/sys`, read-only.
    fn enable_controllers(&self) -> Result<()> {
        let mounts = fs::read_to_string(self.path("/proc/1/mountinfo"))
            .context("read the mount table of the node")?;
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        for point in
            points.filter(|point| *point == "/proc/sys" || point.starts_with("/sys/fs/cgroup/"))
        {
            self.run(&["mount", "-o", "remount,bind,rw", point])?;
        }
        self.systemctl(&["daemon-reexec"])?;
        Ok(())
    }

    /// Returns the process id that PID 1 of the node has on the host.
    #[must_use]
    pub fn pid1(&self) -> u32 {
        self.pid1
    }

    /// Returns the path by which the host reaches a file of the node, given its absolute path inside.
    ///
    /// An absolute symbolic link on the way leads to the host, not into the node.
    #[must_use]
    pub fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        let inside = inside.as_ref();
        Path::new("/proc")
            .join(self.pid1.to_string())
            .join("root")
            .join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// Prepares a program that runs inside, as root, in the directory `/`, with nothing but `PATH` in its environment.
    ///
    /// Arguments, environment and streams are added as for any [`Command`]; `current_dir` has no effect inside. The
    /// exit status is that of the program. Killing the child kills the program. The program is not in a control group
    /// of the node but in that of the test: what systemd does by control group needs [`Node::systemd_run`].
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        host::command_in(self.pid1, program)
    }

    /// Runs a program inside, given with its arguments, and returns its standard output.
    ///
    /// # Errors
    ///
    /// If it cannot be started or does not succeed; the message has its output.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let (program, arguments) = command.split_first().context("no program given")?;
        let output = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start {program} in the node"))?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{}: {}\n{stdout}{}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(stdout.into_owned())
    }

    /// Runs `systemctl` inside and returns its standard output.
    ///
    /// # Errors
    ///
    /// If it does not succeed; the message has its output. `is-active` and others fail to tell an answer: run those
    /// by [`Node::command`].
    pub fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        self.run(&[&["systemctl"], arguments].concat())
    }

    /// Returns one property of a unit, as `systemctl show` prints it.
    ///
    /// # Errors
    ///
    /// If `systemctl` does not succeed. A unit or property that does not exist is no error.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = self.systemctl(&["show", "--value", "--property", name, unit])?;
        Ok(value.trim_end().to_owned())
    }

    /// Starts a command inside as a transient unit, with options of `systemd-run` such as `--slice=…`, `--scope` or
    /// `--wait`, and returns the standard output of `systemd-run`.
    ///
    /// Without `--wait` or `--scope` the command runs on after the return, until it ends or the node does.
    ///
    /// # Errors
    ///
    /// If `systemd-run` does not succeed; with `--wait` or `--scope`, that includes a command that fails.
    pub fn systemd_run(&self, unit: &str, options: &[&str], command: &[&str]) -> Result<String> {
        let unit = format!("--unit={unit}");
        self.run(
            &[
                &["systemd-run", "--quiet", &unit],
                options,
                &["--"],
                command,
            ]
            .concat(),
        )
    }

    /// Writes a unit file or a drop-in (`kubelet.service`, `kubelet.service.d/memory.conf`) to `/etc/systemd/system`
    /// of the node and makes systemd read it.
    ///
    /// # Errors
    ///
    /// If the file cannot be written or systemd does not reload. What systemd does not accept in the file is no
    /// error; its journal tells.
    pub fn write_unit(&self, name: &str, text: &str) -> Result<()> {
        let file = self.path("/etc/systemd/system").join(name);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("make the directory of {name}"))?;
        }
        fs::write(&file, text).with_context(|| format!("write {name}"))?;
        self.systemctl(&["daemon-reload"])?;
        Ok(())
    }

    /// Returns the journal of a unit up to now, messages only: its own output and what systemd says about it.
    ///
    /// # Errors
    ///
    /// If `journalctl` does not succeed.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.run(&["journalctl", "--sync"])?;
        self.run(&["journalctl", "--quiet", "--output=cat", "--unit", unit])
    }

    /// Waits for a message in the journal of a unit and returns it. Messages from before the call count.
    ///
    /// # Errors
    ///
    /// If `accept` takes no message in time; the error has all messages.
    pub fn wait_for_journal(
        &self,
        unit: &str,
        timeout: Duration,
        mut accept: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut reader = self
            .command("journalctl")
            .args([
                "--quiet",
                "--output=cat",
                "--follow",
                "--lines=all",
                "--unit",
                unit,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start journalctl in the node")?;
        let lines =
            BufReader::new(reader.stdout.take().context("the output of journalctl")?).lines();
        let (send, received) = mpsc::channel();
        let follower = thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });

        let mut seen = String::new();
        let found = loop {
            match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if accept(&line) => break Some(line),
                Ok(line) => seen = seen + &line + "\n",
                Err(_) => break None,
            }
        };
        drop(received);
        reader.kill().context("end journalctl")?;
        reader.wait().context("end journalctl")?;
        follower.join().ok();
        found.with_context(|| format!("no such message in the journal of {unit}:\n{seen}"))
    }

    /// Shuts the node down in order, as on a real machine: systemd stops every unit first.
    ///
    /// # Errors
    ///
    /// If the shutdown cannot be asked for, or is not done in time. Nothing of the node is left, in any case.
    pub fn power_off(self) -> Result<()> {
        self.systemctl(&["poweroff", "--no-block"])?;
        ensure!(
            self.leader.wait(POWER_OFF) && self.nspawn.wait(END),
            "the node does not power off"
        );
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // systemd-nspawn ends by itself after PID 1, and cleans up; its own drop kills it if it does not.
        self.leader.kill();
        self.nspawn.wait(END);
    }
}
