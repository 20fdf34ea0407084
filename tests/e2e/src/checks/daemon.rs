//! What serves a volume is killed while containers use it.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::pods;
use crate::processes::{self, Process};
use crate::readers::{Holder, Reader};
use crate::writer::Writer;
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

/// How often it is killed.
const ROUNDS: usize = 5;

/// The FUSE daemon.
pub(crate) fn ossfs_killed(cluster: &Cluster) -> Result<Outcome> {
    under_readers_and_writers(cluster, 0, |process| processes::is_daemon(&process.name))
}

/// The process that holds the FUSE connection and watches over the daemon. What it was just doing is answered
/// with EIO, and so a reader sees at most one for each kill.
pub(crate) fn serve_killed(cluster: &Cluster) -> Result<Outcome> {
    under_readers_and_writers(cluster, ROUNDS, processes::is_serve)
}

/// Both at once.
pub(crate) fn both_killed(cluster: &Cluster) -> Result<Outcome> {
    under_readers_and_writers(cluster, ROUNDS, |process| {
        processes::is_daemon(&process.name) || processes::is_serve(process)
    })
}

/// Whatever runs of the driver, what keeps the connection included. With systemd the Pods read on; without, their
/// mounts are dead, yet they can be deleted, and a new Pod on the volume works.
pub(crate) fn all_killed(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "line", "a line\n");
    for pod in ["first", "second"] {
        pods::start(cluster, pod, pods::spec(&pods::volume(cluster, json!({}))))?;
    }
    kill(cluster, &|process: &Process| {
        processes::is_of_driver(&process.name)
    })?;
    pods::delete(cluster, "first")?;
    pods::start(
        cluster,
        "third",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    let read = Container::of_pod(cluster, "third")?.run(&["cat", "/data/line"])?;
    ensure!(read == "a line\n", "a new Pod reads {read:?}");
    pods::delete(cluster, "second")?;
    pods::delete(cluster, "third")?;
    Ok(Outcome::Done)
}

/// Readers notice nothing; a writer gets EIO or his object is in the bucket; what comes after works.
fn under_readers_and_writers(
    cluster: &Cluster,
    excused: usize,
    victims: impl Fn(&Process) -> bool,
) -> Result<Outcome> {
    cluster.store.put(BUCKET, "line", "a line\n");
    cluster.store.put(BUCKET, "block", vec![b'x'; 1 << 20]);
    for pod in ["first", "second"] {
        pods::start(cluster, pod, pods::spec(&pods::volume(cluster, json!({}))))?;
    }
    let (first, second) = (
        Container::of_pod(cluster, "first")?,
        Container::of_pod(cluster, "second")?,
    );
    let reader = Reader::start(&first, "/data/line", "a line")?;
    let holder = Holder::start(&first, "/data/block", vec![b'x'; 1 << 20])?;
    let writer = Writer::start(second.path("/data")?);
    let mut killed = 0;
    for round in 0..ROUNDS {
        writer
            .progress(Duration::from_secs(60))
            .context("before the kill")?;
        killed += kill(cluster, &victims)?;
        // A name that nobody has asked for before comes from the daemon.
        let fresh = second.path(&format!("/data/none-{round}"))?;
        match fs::metadata(fresh) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => bail!("a look-up after kill {round} gives {other:?}"),
        }
        writer
            .progress(Duration::from_secs(60))
            .context("after the kill")?;
    }
    if killed == 0 {
        // Nothing like it runs on this node.
        drop((reader.finish()?, holder.finish()?, writer.finish()));
        return Ok(Outcome::Skipped("there is no such process".to_owned()));
    }
    reader.finish()?.check(excused)?;
    holder.finish()?.check(excused).context("an open file")?;
    writer.finish().check(&cluster.store)?;
    open_for_writing(cluster, &second, &victims)?;
    Ok(Outcome::Done)
}

/// Kills the processes and waits for their ends; returns how many there were.
fn kill(cluster: &Cluster, victims: &impl Fn(&Process) -> bool) -> Result<usize> {
    let mut found = processes::all(&cluster.node);
    found.retain(victims);
    for process in &found {
        process.handle.kill();
    }
    for process in &found {
        ensure!(
            process.handle.wait(Duration::from_secs(30)),
            "process {} does not end",
            process.pid
        );
    }
    Ok(found.len())
}

/// A file that is open for writing at the kill is over; the same file can be written anew.
fn open_for_writing(
    cluster: &Cluster,
    container: &Container<'_>,
    victims: &impl Fn(&Process) -> bool,
) -> Result<()> {
    let path = container.path("/data/open")?;
    let mut file = File::create(&path).context("open a file for writing")?;
    file.write_all(&[b'1'; 4096]).context("write to it")?;
    kill(cluster, victims)?;
    let results = [
        ("write", file.write_all(&[b'2'; 4096])),
        ("fsync", file.sync_all()),
    ];
    for (call, result) in results {
        let errno = result.as_ref().err().and_then(std::io::Error::raw_os_error);
        ensure!(
            errno == Some(nix::errno::Errno::EIO as i32),
            "{call} on a file that was open for writing at the kill gives {result:?}"
        );
    }
    drop(file);
    let mut file = File::create(&path).context("open the file again")?;
    file.write_all(b"anew")
        .and_then(|()| file.sync_all())
        .context("write it anew")?;
    drop(file);
    let object = cluster.store.object(BUCKET, "open");
    ensure!(
        object.as_deref() == Some(b"anew"),
        "the object is {object:?}"
    );
    Ok(())
}
