//! A node for the installer's tests: a host in a temporary directory, drivers to install, a kubelet
//! that watches, and an eye on the driver's path that never looks away.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

pub mod eye;
pub mod killer;

use serde_json::json;
use std::fs::{Permissions, create_dir_all, hard_link, read, set_permissions, write};
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longer than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const DRIVER: &str = "alicloud~oss/oss";

/// A host with a plugin directory, and what the installer is told about it.
pub struct Node {
    directory: TempDir,
    pub plugins: PathBuf,
    pub state: PathBuf,
}

impl Node {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("oss-installer-test-")
            .tempdir()
            .expect("a directory");
        let node = Self {
            plugins: directory.path().join("host/plugins"),
            state: directory.path().join("host/run/alicloud-oss"),
            directory,
        };
        create_dir_all(&node.plugins).unwrap();
        create_dir_all(&node.state).unwrap();
        create_dir_all(node.path("proc")).unwrap();
        set_permissions(&node.plugins, Permissions::from_mode(0o755)).unwrap();
        node.show_process("1", std::process::id());
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn host(&self, path: &str) -> PathBuf {
        self.path("host").join(path.trim_start_matches('/'))
    }

    /// The driver's path.
    pub fn driver(&self) -> PathBuf {
        self.plugins.join(DRIVER)
    }

    /// Makes a driver of `build` that answers init with `answer`, and returns its path.
    pub fn make_driver(&self, build: &str, answer: &str) -> PathBuf {
        let mut program = read(example("driver-stand-in")).unwrap();
        let own = json!({"build": build, "answer": answer, "state": self.state});
        program.extend(format!("\nSTAND-IN {own}").bytes());
        let (parts, path) = (self.path("parts"), self.path(&format!("image-{build}")));
        write(&parts, program).unwrap();
        copy_program(&parts, &path);
        path
    }

    /// Shows the process `pid` of this machine in the host's /proc as `name`.
    pub fn show_process(&self, name: &str, pid: u32) {
        let link = self.path("proc").join(name);
        let _ = std::fs::remove_file(&link);
        symlink(format!("/proc/{pid}"), link).unwrap();
    }

    /// The installer, told of the plugin directory and the state directory, for `driver`.
    pub fn minimal(&self, word: &str, driver: &Path) -> Command {
        let mut command = installer(word);
        command
            .arg("--driver")
            .arg(driver)
            .arg("--plugin-dir")
            .arg(&self.plugins)
            .arg("--state-dir")
            .arg(&self.state);
        command
    }

    /// The installer, told of the host's root and /proc.
    pub fn full(&self, word: &str, driver: &Path) -> Command {
        let mut command = installer(word);
        command
            .arg("--driver")
            .arg(driver)
            .arg("--host-root")
            .arg(self.path("host"))
            .arg("--proc")
            .arg(self.path("proc"));
        command
    }

    /// Starts the stand-in for kubelet, with `args`, and shows it in the host's /proc.
    pub fn start_kubelet(&self, args: &[&str]) -> Process {
        let program = self.path("bin/kubelet");
        create_dir_all(program.parent().unwrap()).unwrap();
        if !program.exists() && hard_link(example("kubelet-stand-in"), &program).is_err() {
            copy_program(&example("kubelet-stand-in"), &program);
        }
        let mut command = Command::new(program);
        command.args(args).arg("--watch").arg(&self.plugins);
        let mut kubelet = Process::start(command.stderr(Stdio::inherit()), Stream::Stdout);
        kubelet.wait_for("watching");
        self.show_process(&kubelet.id().to_string(), kubelet.id());
        kubelet
    }

    /// What `kubelet` did until now, once all that happened before this call has reached it.
    pub fn seen_by(&self, kubelet: &mut Process) -> Vec<String> {
        let marker = format!("zz~marker{}", kubelet.markers);
        kubelet.markers += 1;
        std::fs::create_dir(self.plugins.join(&marker)).unwrap();
        let mut lines = kubelet.read_until(&format!("init {marker} failed"));
        lines.pop();
        std::fs::remove_dir(self.plugins.join(&marker)).unwrap();
        lines.extend(kubelet.read_until(&format!("removed {marker}")));
        lines.pop();
        lines
    }

    /// The names in the plugin directory and in the driver's.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for directory in [self.plugins.clone(), self.plugins.join("alicloud~oss")] {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                names.push(entry.unwrap().file_name().into_string().unwrap());
            }
        }
        names.sort();
        names
    }
}

/// Makes the program `to` from the bytes of `from`. Another process writes it: one of this process's
/// threads may be about to start a program, which has the file open for a moment, too, and then
/// nobody can run it.
#[track_caller]
pub fn copy_program(from: &Path, to: &Path) {
    let mut command = Command::new("install");
    let status = command.args(["--mode", "0755"]).args([from, to]).status();
    assert!(status.unwrap().success());
}

/// The installer, with an empty environment.
pub fn installer(word: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oss-installer"));
    command.env_clear().arg(word).stdin(Stdio::null());
    command
}

impl Drop for Node {
    /// Unmounts what the test has mounted in the node, so that its directory can be removed.
    fn drop(&mut self) {
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let own = points.filter(|point| Path::new(point).starts_with(self.directory.path()));
        for point in own.collect::<Vec<_>>().into_iter().rev() {
            // With one above it, it may be gone already.
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// The installer for `driver` beside the booted `node`, as in a Pod with hostPID; `image` has its view
/// of the node's /proc.
pub fn beside(node: &node::Node, image: &Node, word: &str, driver: &Path) -> Command {
    image.show_process("1", node.pid1());
    // systemd talks to who is in its pid namespace.
    let mut command = Command::new("nsenter");
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .args(["--pid", "--no-fork", "--target"])
        .arg(node.pid1().to_string())
        .arg("--")
        .arg(installer(word).get_program())
        .arg(word)
        .arg("--driver")
        .arg(driver)
        .arg("--host-root")
        .arg(format!("/proc/{}/root", node.pid1()))
        .arg("--proc")
        .arg(image.path("proc"));
    command
}

/// A program that is built with the tests.
pub fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().join("../examples").join(name);
    assert!(
        path.exists(),
        "{} is missing: a plain cargo test builds it, and so does cargo build --examples",
        path.display()
    );
    path
}

/// Runs `command` to its end, and returns what it logged.
#[track_caller]
pub fn finish(command: &mut Command) -> (bool, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("start the installer");
    let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.success(), text)
}

/// Which output of a process is read.
pub enum Stream {
    Stdout,
    Stderr,
}

/// A process whose lines are read while it runs; it is killed when it is dropped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    markers: u32,
}

impl Process {
    pub fn start(command: &mut Command, stream: Stream) -> Self {
        match stream {
            Stream::Stdout => command.stdout(Stdio::piped()),
            Stream::Stderr => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().expect("start a process");
        let output: Box<dyn Read + Send> = match stream {
            Stream::Stdout => Box::new(child.stdout.take().unwrap()),
            Stream::Stderr => Box::new(child.stderr.take().unwrap()),
        };
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            markers: 0,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The lines up to the first one with `text` in it.
    #[track_caller]
    pub fn read_until(&mut self, text: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(e) => panic!("{e} while waiting for {text:?}, after {lines:#?}"),
            }
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines;
            }
        }
    }

    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        self.read_until(text).pop().unwrap()
    }

    /// Comes back once the process waits for the lock of a file (proc_locks(5)).
    #[track_caller]
    pub fn await_lock(&self) {
        let pid = self.id().to_string();
        let waits =
            |line: &str| line.contains("->") && line.split_whitespace().any(|word| word == pid);
        self.look_until("it waits for a lock", || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(waits)
        });
    }

    /// Comes back once `is_so`, of which nothing tells.
    #[track_caller]
    pub fn look_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let since = Instant::now();
        while !is_so() {
            assert!(since.elapsed() < PATIENCE, "not seen: {what}");
            std::thread::yield_now();
        }
    }

    /// Asks the process to end, and returns whether it ended well, with the rest of its lines.
    pub fn terminate(&mut self) -> (bool, Vec<String>) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.finish()
    }

    /// Waits until it has ended, and returns whether it ended well, with the rest of its lines.
    pub fn finish(&mut self) -> (bool, Vec<String>) {
        let status = self.child.wait().unwrap();
        (status.success(), self.lines.iter().collect())
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
