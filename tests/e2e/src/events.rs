//! Events, as they come.

use crate::cluster::Cluster;
use crate::kubectl;
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long an event may take to come.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Waits for an event about the Pod `name` whose message `accept` takes, and returns the message. Events from
/// before the call count.
///
/// # Errors
/// If none comes in time; the error has the messages that came.
pub(crate) fn wait(cluster: &Cluster, name: &str, accept: impl Fn(&str) -> bool) -> Result<String> {
    let deadline = Instant::now() + TIMEOUT;
    let about = format!("--field-selector=involvedObject.name={name}");
    let arguments = [
        "get",
        "events",
        "--watch",
        &about,
        "-o",
        "jsonpath={.message}{\"\\n\"}",
    ];
    let mut watcher = kubectl::command(&cluster.node, &arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start kubectl")?;
    let lines = BufReader::new(watcher.stdout.take().context("the output of kubectl")?).lines();
    let (send, received) = mpsc::channel();
    let follower = thread::spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| send.send(line))
    });
    let mut seen = Vec::new();
    let found = loop {
        match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if accept(&line) => break Some(line),
            Ok(line) => seen.push(line),
            Err(_) => break None,
        }
    };
    drop(received);
    watcher.kill().context("end kubectl")?;
    watcher.wait().context("end kubectl")?;
    follower.join().ok();
    found.with_context(|| format!("no such event; the events of {name}: {}", seen.join("; ")))
}
