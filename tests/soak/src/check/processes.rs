//! Processes: those of each volume, containers, and no others; what they have open.

use super::{Expected, Noted};
use crate::snapshot::{Process, Snapshot};
use std::collections::BTreeMap;

/// More descriptors than a process of a volume that nobody uses has; s3fs keeps connections open.
const DESCRIPTORS: usize = 64;
/// More memory than one has that has written files of this run's size, in KiB.
const MEMORY: u64 = 256 * 1024;
/// The processes of a volume besides the three that there must be.
const HELPERS: [&str; 2] = ["oss-sandbox", "oss-notify"];

/// Which processes there are: of each volume a parent, a child and an ossfs, containers, and no others.
pub(super) fn check(found: &Snapshot, noted: &[Noted], expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    let all: BTreeMap<u32, &Process> = found.processes.iter().map(|p| (p.pid, p)).collect();
    // Which have a pipe open, by pipe and volume.
    let mut pipes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for process in &found.processes {
        if expected.containers.contains(&process.pid) {
            continue;
        }
        let Some(volume) = volume_of(process, &all, noted) else {
            wrong.push(format!(
                "process {} is left: {} ({}) {}",
                process.pid, process.name, process.program, process.arguments
            ));
            continue;
        };
        wrong.extend(bounds(process, volume.id));
        for link in process
            .open
            .values()
            .filter(|link| link.starts_with("pipe:"))
        {
            pipes.entry(link).or_default().push(volume.id);
        }
    }
    for volume in noted {
        wrong.extend(processes_of(volume, &all, noted, expected));
    }
    for (pipe, volumes) in &pipes {
        if volumes.iter().any(|volume| *volume != volumes[0]) {
            wrong.push(format!("volumes share {pipe}: {volumes:?}"));
        }
    }
    wrong
}

/// The volume whose parent process is this process, or an ancestor of it.
fn volume_of<'n>(
    process: &Process,
    all: &BTreeMap<u32, &Process>,
    noted: &'n [Noted<'n>],
) -> Option<&'n Noted<'n>> {
    let mut next = Some(process);
    while let Some(process) = next {
        let volume = noted.iter().find(|v| v.daemon == Some(process.pid));
        if volume.is_some() {
            return volume;
        }
        next = all.get(&process.parent).copied();
    }
    None
}

/// What is wrong with the processes of one volume.
fn processes_of(
    volume: &Noted,
    all: &BTreeMap<u32, &Process>,
    noted: &[Noted],
    expected: &Expected,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let place = format!("{}/volumes/{}", expected.state, volume.id);
    let own = all
        .values()
        .filter(|process| volume_of(process, all, noted).is_some_and(|v| v.id == volume.id));
    let own: Vec<_> = own.collect();
    let mut known = 0;
    for part in [
        format!("serve --parent {place} "),
        format!("serve --child {place} "),
        format!("passwd_file={place}/passwd"),
    ] {
        let count = own
            .iter()
            .filter(|process| process.arguments.contains(&part))
            .count();
        known += count;
        if count != 1 {
            wrong.push(format!(
                "volume {} has {count} processes with {part}",
                volume.id
            ));
        }
    }
    let helpers = own.iter().filter(|process| {
        HELPERS
            .iter()
            .any(|name| process.arguments.trim_end() == *name)
    });
    if known + helpers.count() != own.len() {
        let all: Vec<_> = own.iter().map(|process| &process.arguments).collect();
        wrong.push(format!("volume {} has other processes: {all:?}", volume.id));
    }
    wrong
}

/// What a process of a volume takes too much of.
fn bounds(process: &Process, id: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let pid = process.pid;
    if process.open.len() > DESCRIPTORS {
        wrong.push(format!(
            "process {pid} of {id} has open: {:?}",
            process.open
        ));
    }
    if process.open.values().any(|link| link.ends_with("/lock")) {
        wrong.push(format!(
            "process {pid} of {id} has a lock open: {:?}",
            process.open
        ));
    }
    if process.memory > MEMORY {
        wrong.push(format!("process {pid} of {id} has {} KiB", process.memory));
    }
    wrong
}
