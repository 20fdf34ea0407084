//! What a node leaves behind: nothing after its end, and nothing after the death of the test process and the next boot.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use support::node::{self, Config, Node};

const TIMEOUT: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// The tests look for traces by process, and tests of one process run at the same time.
static ALONE: Mutex<()> = Mutex::new(());

/// Not a test: boots a node, tells its PID 1 and stays until it is killed.
#[test]
#[ignore = "the process that another test kills"]
fn owner() -> Result<()> {
    let node = Node::boot(Config::new())?;
    node.systemd_run("stays", &[], &["sleep", "infinity"])?;
    // Past the capture of the test harness.
    writeln!(io::stderr(), "PID1={}", node.pid1())?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Everything of nodes of one owner that the host can see.
fn traces(owner: u32) -> Result<Vec<String>> {
    let mark = format!("oss-node-{owner}-");
    let mut found: Vec<_> = fs::read_to_string("/proc/self/mounts")?
        .lines()
        .map(str::to_owned)
        .collect();
    for directory in ["/run/oss-flexvolume-tests", "/run/systemd/nspawn/propagate"] {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        found.extend(
            entries
                .flatten()
                .map(|entry| entry.path().display().to_string()),
        );
    }
    groups(Path::new("/sys/fs/cgroup"), &mut found);
    for process in fs::read_dir("/proc")?.flatten() {
        found.push(fs::read_to_string(process.path().join("cmdline")).unwrap_or_default());
    }
    found.retain(|trace| trace.contains(&mark));
    Ok(found)
}

fn groups(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path().display().to_string());
            groups(&entry.path(), found);
        }
    }
}

#[test]
fn nothing_is_left_after_the_end() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let me = std::process::id();
    for orderly in [true, false] {
        let node = Node::boot(Config::new())?;
        node.systemd_run("stays", &[], &["sleep", "infinity"])?;
        assert_ne!(traces(me)?, [""; 0]);
        if orderly {
            node.power_off()?;
        } else {
            drop(node);
        }
        assert_eq!(traces(me)?, [""; 0]);
    }
    // A node that does not boot.
    assert!(Node::boot(Config::new().bind("/does/not/exist", "/x")).is_err());
    assert_eq!(traces(me)?, [""; 0]);
    Ok(())
}

#[test]
fn a_killed_owner_takes_its_node_along() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut owner = Command::new(env::current_exe()?)
        .args(["--exact", "owner", "--ignored"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut pid1 = None;
    for line in BufReader::new(owner.stderr.take().context("stderr")?).lines() {
        if let Some(pid) = line?.strip_prefix("PID1=") {
            pid1 = Pid::from_raw(pid.parse()?);
            break;
        }
    }
    let pid1 = pidfd_open(
        pid1.context("the owner did not boot a node")?,
        PidfdFlags::empty(),
    )?;

    owner.kill()?;
    owner.wait()?;

    let ended = poll(&mut [PollFd::new(&pid1, PollFlags::IN)], Some(&TIMEOUT))?;
    ensure!(ended == 1, "the node outlives its owner");
    drop(Node::boot(Config::new())?);
    assert_eq!(traces(owner.id())?, [""; 0]);
    Ok(())
}
