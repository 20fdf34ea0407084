//! What may not be left on the node, or be readable anywhere, once no Pod has a volume.

use crate::cluster::Cluster;
use crate::processes;
use anyhow::{Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::Mount;

/// How long a daemon may take to end after its last Pod: it still writes what is not written.
const ENDING: Duration = Duration::from_secs(30);

/// The driver's state, of which nothing about a volume may be left.
const STATE: &str = "/run/alicloud-oss/volumes";

/// Fails with all that is left of volumes that are no more.
pub(crate) fn check(cluster: &Cluster) -> Result<()> {
    let mut found = Vec::new();
    let deadline = Instant::now() + ENDING;
    for process in processes::of_driver(&cluster.node) {
        if !process
            .handle
            .wait(deadline.saturating_duration_since(Instant::now()))
        {
            found.push(format!("process {} {:?}", process.pid, process.arguments));
        }
    }
    found.extend(
        mounts(cluster)
            .into_iter()
            .map(|line| format!("mount {line}")),
    );
    found.extend(
        volumes(cluster)
            .into_iter()
            .map(|name| format!("{STATE}/{name}")),
    );
    found.extend(
        units(cluster)?
            .into_iter()
            .map(|unit| format!("unit {unit}")),
    );
    found.extend(secrets(cluster)?);
    ensure!(found.is_empty(), "left on the node: {}", found.join("; "));
    Ok(())
}

/// Mounts of the node that are FUSE or belong to a volume.
fn mounts(cluster: &Cluster) -> Vec<String> {
    let mut table = Mount::table(format!("/proc/{}/mountinfo", cluster.node.pid1()));
    table.retain(|mount| {
        mount.kind == "fuse" || mount.kind.starts_with("fuse.") || mount.point.contains("alicloud")
    });
    table
        .into_iter()
        .map(|mount| format!("{} at {}", mount.kind, mount.point))
        .collect()
}

/// What is left of the state of volumes, which is nothing.
fn volumes(cluster: &Cluster) -> Vec<String> {
    let directories = fs::read_dir(cluster.node.path(STATE));
    let names = directories.into_iter().flatten().flatten();
    names
        .map(|entry| {
            let files = files(&entry.path());
            let files = files.iter().filter_map(|file| file.file_name());
            let files: Vec<_> = files.map(|name| name.to_string_lossy()).collect();
            format!("{} with {}", entry.file_name().display(), files.join(", "))
        })
        .collect()
}

fn units(cluster: &Cluster) -> Result<Vec<String>> {
    let units = cluster.node.systemctl(&[
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "--full",
        "alicloud-oss@*",
        "alicloud-oss-*",
    ])?;
    Ok(units.lines().map(str::to_owned).collect())
}

/// Every file below a directory; mount points are not entered.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != "staging" => {
                found.extend(files(&entry.path()));
            }
            _ => {}
        }
        found.push(entry.path());
    }
    found
}

/// Where a secret is that may be nowhere: the journal, events, logs, and what processes were started with.
fn secrets(cluster: &Cluster) -> Result<Vec<String>> {
    let node = &cluster.node;
    node.run(&["journalctl", "--sync"])?;
    let mut texts = vec![
        (
            "the journal".to_owned(),
            node.run(&["journalctl", "--quiet", "--output=cat", "--all"])?,
        ),
        (
            "events".to_owned(),
            cluster.kubectl(&["get", "events", "-A", "-o", "json"])?,
        ),
    ];
    for file in files(&node.path("/var/log")) {
        if file.is_file() && file.extension().is_none_or(|e| e != "journal") {
            let text = fs::read(&file).unwrap_or_default();
            texts.push((
                file.display().to_string(),
                String::from_utf8_lossy(&text).into_owned(),
            ));
        }
    }
    for process in processes::all(node) {
        for name in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{}/{name}", process.pid)).unwrap_or_default();
            texts.push((
                format!("{name} of {}", process.name),
                String::from_utf8_lossy(&text).into_owned(),
            ));
        }
    }
    let mut found = Vec::new();
    for secret in cluster.secrets.borrow().iter() {
        let holds = texts
            .iter()
            .filter(|(_, text)| text.contains(secret.as_str()));
        found.extend(holds.map(|(place, _)| format!("secret {secret:?} in {place}")));
    }
    Ok(found)
}
