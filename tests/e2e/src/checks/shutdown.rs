//! The node shuts down in order while a Pod writes.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::pods;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};
use support::Pidfd;

/// Longer than systemd waits for the processes of a unit before it kills them.
const SHUTDOWN: Duration = Duration::from_secs(150);

/// Writes files until it is told to end, and one more then; says which are written in a file of the node.
const WRITER: &str = "exec 2>/dev/null; trap stop=1 TERM; n=0; while [ -z \"$stop\" ]; do n=$((n + 1)); \
    echo $n >/data/$n && echo $n >>/written/list || sleep 1; done; \
    echo last >/data/last && echo last >>/written/list";

/// What the Pod has written, its last file included, is in the bucket.
pub(crate) fn under_a_writer(cluster: &Cluster) -> Result<Outcome> {
    let mut spec = pods::spec(&pods::volume(cluster, json!({})));
    let directory = cluster.shared("written");
    fs::create_dir(&directory).context("make a directory")?;
    spec["volumes"].as_array_mut().context("volumes")?.push(
        json!({"name": "written", "hostPath": {"path": "/opt/e2e/written", "type": "Directory"}}),
    );
    spec["terminationGracePeriodSeconds"] = json!(20);
    spec["containers"][0]["command"] = json!(["sh", "-c", WRITER]);
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "written", "mountPath": "/written"},
    ]);
    pods::start(cluster, "writer", spec)?;
    let written = cluster
        .store
        .wait_for_request(Duration::from_secs(30), |request| {
            request.method == "PUT" && request.key == "3"
        });
    ensure!(written, "the Pod writes nothing");

    let first = Pidfd::open(cluster.node.pid1())?;
    let began = Instant::now();
    cluster.node.systemctl(&["poweroff", "--no-block"])?;
    ensure!(first.wait(SHUTDOWN), "the node does not power off");
    println!(
        "         the node was off after {:.1} s",
        began.elapsed().as_secs_f64()
    );

    let list = fs::read_to_string(directory.join("list")).context("what the Pod has written")?;
    for name in list.lines() {
        let object = cluster.store.object(BUCKET, name);
        ensure!(
            object == Some(format!("{name}\n").into_bytes()),
            "{name}, which was written, is {object:?}"
        );
    }
    ensure!(
        list.ends_with("last\n"),
        "the Pod could not write after SIGTERM; it wrote {}",
        list.lines().count()
    );
    Ok(Outcome::Done)
}
