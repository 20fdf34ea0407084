//! The store is silent or away.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::readers::Reader;
use crate::{events, pods, processes};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::time::Duration;
use support::store::Fault;

/// How long a Pod may take to go although its container waits for a store that does not answer.
const GOING: &str = "60s";

/// A process waits for a store that says nothing: its Pod can be deleted all the same.
pub(crate) fn silent(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "line", "a line\n");
    pods::start(
        cluster,
        "waiting",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    let container = Container::of_pod(cluster, "waiting")?;
    let silence = cluster.store.inject_everywhere(Fault::Hang);
    cluster.store.clear_requests();
    let mut waiting = container
        .command(&["cat", "/data/line"])
        .spawn()
        .context("start a reader")?;
    let asked = cluster
        .store
        .wait_for_request(Duration::from_secs(30), |_| true);
    ensure!(asked, "the reader has asked for nothing");
    cluster.kubectl(&["delete", "pod", "waiting", "--wait=false"])?;
    let timeout = format!("--timeout={GOING}");
    let gone = cluster.kubectl(&["wait", "--for=delete", "pod/waiting", &timeout]);
    cluster.store.remove_fault(silence);
    waiting.wait().context("the reader")?;
    gone.map(|_| Outcome::Done)
        .with_context(|| format!("the Pod is not gone {GOING} after it was deleted"))
}

/// The daemon is killed while the store refuses: who reads waits, a new Pod is told why, and both go on when the
/// store is back. A Pod on another such volume can be deleted meanwhile.
pub(crate) fn away(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "line", "a line\n");
    cluster.store.put(BUCKET, "part/line", "a line\n");
    let part = pods::volume(cluster, json!({"options": {"path": "/part"}}));
    pods::start(
        cluster,
        "reading",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    pods::start(cluster, "leaving", pods::spec(&part))?;
    let container = Container::of_pod(cluster, "reading")?;
    let reader = Reader::start(&container, "/data/line", "a line")?;
    let refusal = cluster.store.inject_everywhere(Fault::Close);
    for daemon in processes::daemons(&cluster.node) {
        daemon.handle.kill();
    }
    cluster.apply(&[pods::pod(
        "coming",
        pods::spec(&pods::volume(cluster, json!({}))),
    )])?;
    let told = events::wait(cluster, "coming", |message| {
        message.contains("mount command failed")
    });
    let left = pods::delete(cluster, "leaving").context("delete a Pod while the store is away");
    cluster.store.remove_fault(refusal);
    told?;
    left?;
    pods::ready(cluster, "coming").context("after the store is back")?;
    Container::of_pod(cluster, "coming")?.run(&["cat", "/data/line"])?;
    reader.finish()?.check(0)?;
    Ok(Outcome::Done)
}
