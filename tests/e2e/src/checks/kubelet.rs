//! kubelet ends and comes back while Pods read.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::readers::{Holder, Reader};
use crate::{pods, processes};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::time::Duration;

/// `systemctl restart kubelet`, which ends all that is in its control group.
pub(crate) fn restarted(cluster: &Cluster) -> Result<Outcome> {
    around(cluster, |cluster| {
        cluster.node.systemctl(&["restart", "kubelet"]).map(drop)
    })
}

/// SIGKILL of kubelet; systemd starts it again.
pub(crate) fn killed(cluster: &Cluster) -> Result<Outcome> {
    around(cluster, |cluster| {
        let kubelet = processes::all(&cluster.node)
            .into_iter()
            .find(|process| process.name == "kubelet");
        let kubelet = kubelet.context("no kubelet runs")?;
        kubelet.handle.kill();
        ensure!(
            kubelet.handle.wait(Duration::from_secs(30)),
            "kubelet does not end"
        );
        // Waits for the start that systemd has scheduled.
        cluster.node.systemctl(&["start", "kubelet"]).map(drop)
    })
}

/// Two readers notice nothing, a Pod that starts afterwards works, and both volumes can be unmounted.
fn around(cluster: &Cluster, end_kubelet: impl Fn(&Cluster) -> Result<()>) -> Result<Outcome> {
    cluster.store.put(BUCKET, "line", "a line\n");
    cluster.store.put(BUCKET, "block", vec![b'x'; 1 << 20]);
    pods::start(
        cluster,
        "reader",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    let container = Container::of_pod(cluster, "reader")?;
    let reader = Reader::start(&container, "/data/line", "a line")?;
    let holder = Holder::start(&container, "/data/block", vec![b'x'; 1 << 20])?;
    for round in ["first", "second"] {
        end_kubelet(cluster)?;
        pods::start(
            cluster,
            round,
            pods::spec(&pods::volume(cluster, json!({}))),
        )?;
        Container::of_pod(cluster, round)?.run(&["cat", "/data/line"])?;
    }
    reader.finish()?.check(0)?;
    holder.finish()?.check(0).context("an open file")?;
    for pod in ["reader", "first", "second"] {
        pods::delete(cluster, pod)?;
    }
    Ok(Outcome::Done)
}
