//! Processes: one daemon a volume, containers, and no others; what daemons have open.

use super::{Expected, Noted};
use crate::snapshot::{Process, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// More descriptors than a daemon that nobody uses has; s3fs keeps connections open.
const DESCRIPTORS: usize = 48;
/// More memory than a daemon has that has written files of this run's size, in KiB.
const MEMORY: u64 = 256 * 1024;

/// Which processes there are: one daemon a volume, containers, and no others.
pub(super) fn check(found: &Snapshot, noted: &[Noted], expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut pipes: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    let mut daemons: BTreeSet<u32> = BTreeSet::new();
    for process in &found.processes {
        for link in process
            .open
            .values()
            .filter(|link| link.starts_with("pipe:"))
        {
            pipes.entry(link).or_default().insert(process.pid);
        }
        if expected.containers.contains(&process.pid) {
            continue;
        }
        let volume = noted.iter().find(|v| v.daemon == Some(process.pid));
        match volume {
            Some(volume) if process.name == "s3fs" => {
                daemons.insert(process.pid);
                wrong.extend(daemon(process, volume.id, expected));
            }
            _ => wrong.push(format!(
                "process {} is left: {} ({}) {}",
                process.pid, process.name, process.program, process.arguments
            )),
        }
    }
    for volume in noted {
        if volume.daemon.is_none_or(|pid| !daemons.contains(&pid)) {
            wrong.push(format!(
                "volume {} has no daemon: {:?}",
                volume.id, volume.daemon
            ));
        }
    }
    for (pipe, ends) in &pipes {
        if ends.len() > 1 && ends.iter().any(|pid| daemons.contains(pid)) {
            wrong.push(format!("a daemon shares {pipe} with others: {ends:?}"));
        }
    }
    wrong
}

/// What is wrong with the daemon of a volume.
fn daemon(process: &Process, id: &str, expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let pid = process.pid;
    let place = format!("{}/volumes/{id}", expected.state);
    for part in [
        format!("{place}/staging"),
        format!("passwd_file={place}/passwd"),
    ] {
        if !process.arguments.contains(&part) {
            wrong.push(format!(
                "daemon {pid} of {id} has no {part} among its arguments"
            ));
        }
    }
    if process.open.len() > DESCRIPTORS {
        wrong.push(format!("daemon {pid} of {id} has open: {:?}", process.open));
    }
    for (number, link) in &process.open {
        let is_own = |link: &str| {
            link == "/dev/null"
                || link == "/dev/fuse"
                || link.starts_with("socket:")
                || link.starts_with("anon_inode:")
                // Its words, which nobody reads any more.
                || (*number <= 2 && link.starts_with("pipe:"))
        };
        if !is_own(link) {
            wrong.push(format!("daemon {pid} of {id} has open: {number} {link}"));
        }
    }
    if process.memory > MEMORY {
        wrong.push(format!("daemon {pid} of {id} has {} KiB", process.memory));
    }
    wrong
}
