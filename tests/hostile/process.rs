//! The driver as a process: modes of what it makes whatever its caller's umask is, and no core dump
//! of a process that holds a key.

use crate::DRIVER;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Sandbox, with_sandbox};

/// Every path below `directory`, itself first; a staging directory is not entered.
fn paths(directory: &Path) -> Vec<PathBuf> {
    let mut paths = vec![directory.to_owned()];
    if directory.file_name().is_some_and(|name| name == "staging") {
        return paths;
    }
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap().is_dir() {
            true => paths.extend(self::paths(&path)),
            false => paths.push(path),
        }
    }
    paths
}

fn assert_modes(node: &Sandbox, state: &Path, umask: &str) {
    let mut files = 0;
    for path in paths(state) {
        if path.ends_with("staging") {
            // What is mounted there has modes of its own.
            continue;
        }
        let meta = fs::symlink_metadata(&path).unwrap();
        // What its ossfs sees of the node's /etc: another user reads it.
        let is_live = path.ancestors().any(|path| path.ends_with("live"));
        let expected = match (meta.is_dir(), is_live) {
            (true, false) => 0o700,
            (false, false) => 0o600,
            (true, true) => 0o755,
            (false, true) => 0o644,
        };
        let found = (meta.uid(), meta.gid(), meta.mode() & 0o7777);
        assert_eq!(found, (0, 0, expected), "{} under {umask}", path.display());
        files += usize::from(meta.is_file());
    }
    // passwd, volume.json, lock, daemon and a target.
    assert!(files >= 5, "{files} files in {}", state.display());
    let log = node.log_file();
    for (path, expected) in [(log.as_path(), 0o640), (log.parent().unwrap(), 0o750)] {
        let mode = path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode, expected, "{} under {umask}", path.display());
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn modes_are_exact_whatever_the_umask_of_the_caller() {
    for umask in ["000", "022", "077", "777"] {
        with_sandbox(DRIVER, |node| {
            let state = node.path("deep/er/state");
            let config = json!({"stateDir": state});
            node.configure(config.as_object().unwrap());
            let wrapper = format!("umask {umask}; exec {DRIVER} \"$@\"\n");
            let mut kubelet = node.kubelet.clone();
            kubelet.driver = node.write_script("wrapper", &wrapper);
            let target = node.target("u", "v");
            kubelet.mount(&target, &node.options(json!({}))).success();
            assert_modes(node, &state, umask);
            for parent in [node.path("deep"), node.path("deep/er")] {
                let mode = parent.metadata().unwrap().mode() & 0o7777;
                assert_eq!(mode & 0o022, 0, "{} has {mode:o}", parent.display());
            }
            // The volume's own files are made under the daemon's umask, not the caller's.
            fs::write(target.join("file"), "x").unwrap();
            kubelet.unmount(&target).success();
        });
    }
}

/// Runs the driver until its daemon has started, ends it with SIGABRT, which dumps, and returns how it ended.
/// The core limit is lifted meanwhile if `lift` is given.
fn ended_by_a_signal(node: &Sandbox, lift: bool) -> std::process::ExitStatus {
    let (started, go) = (node.path("started"), node.path("go"));
    for fifo in [&started, &go] {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let body = format!(
        "echo started > {}\nread line < {}\n",
        started.display(),
        go.display()
    );
    // Without a sandbox it sees those files.
    let config = json!({"ossfs": node.write_script("waiting", &body), "sandbox": "off"});
    node.configure(config.as_object().unwrap());
    let target = node.target("u", "v");
    fs::create_dir_all(&target).unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            "ulimit -c unlimited && exec \"$0\" \"$@\"",
            DRIVER,
            "mount",
        ])
        .arg(&target)
        .arg(node.options(json!({})).to_string())
        .envs(node.kubelet.environment.iter().cloned())
        .current_dir(node.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let both = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    let heard = both(&started).unwrap();
    let mut fds = [PollFd::new(heard.as_fd(), PollFlags::POLLIN)];
    let minute = PollTimeout::from(60_000_u16);
    assert_eq!(poll(&mut fds, minute).unwrap(), 1, "the daemon starts");

    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed());
    if lift {
        let all = rustix::process::Rlimit {
            current: None,
            maximum: None,
        };
        match rustix::process::prlimit(pid, rustix::process::Resource::Core, all) {
            // Without CAP_SYS_RESOURCE, as in some containers, nobody can lift it again.
            Ok(_) | Err(rustix::io::Errno::PERM) => {}
            Err(e) => panic!("lift the limit: {e}"),
        }
    }
    // Rust's runtime has a handler for SIGSEGV, and shells have background processes ignore SIGQUIT.
    let abort = rustix::process::Signal::ABORT;
    rustix::process::kill_process(pid.unwrap(), abort).unwrap();
    let status = child.wait().unwrap();
    both(&go).unwrap().write_all(b"go\n").unwrap();
    node.unmount(&target).success();
    status
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_driver_leaves_no_core_dump() {
    // Without the limit, too: what a core_pattern pipes to a program has none (core(5)).
    for lift in [false, true] {
        with_sandbox(DRIVER, |node| {
            let status = ended_by_a_signal(node, lift);
            let log = node.log();
            assert_eq!(status.signal(), Some(nix::libc::SIGABRT), "{status}: {log}");
            assert!(!status.core_dumped(), "{status}, lifted: {lift}");
        });
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_daemon_would_dump_nothing_that_it_knows() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u", "v");
        node.mount(&target, &node.options(json!({}))).success();
        for pid in node.daemons() {
            let of = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
            assert_eq!(of("coredump_filter").trim(), "00000000");
            let limits = of("limits");
            let core = limits.lines().find(|l| l.starts_with("Max core")).unwrap();
            assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        }
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_daemon_that_talks_for_ever_fills_nothing_and_does_not_hang() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u", "v");
        let options = node.options(json!({"otherOpts": "-o dbglevel=debug -o f2"}));
        node.mount(&target, &options).success();
        for n in 0..2000 {
            // Each of them makes the daemon write lines about it.
            let _ = fs::metadata(target.join(format!("none{n}")));
        }
        let bytes: u64 = paths(&node.state_directory())
            .iter()
            .filter(|path| !path.ends_with("staging"))
            .map(|path| fs::symlink_metadata(path).unwrap())
            .filter(fs::Metadata::is_file)
            .map(|meta| meta.len())
            .sum();
        assert!(bytes < 64 * 1024, "{bytes} bytes in the state directory");
        node.unmount(&target).success();
    });
}
