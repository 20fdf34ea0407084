//! Many Pods on one node.

use super::Outcome;
use super::volumes::{claim_objects, deployment, pods_of, rolled_out};
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::processes;
use anyhow::{Result, ensure};

/// Forty Pods on one claim: all of them read and write, and one daemon serves them.
pub(crate) fn forty_on_one_claim(cluster: &Cluster) -> Result<Outcome> {
    const PODS: usize = 40;
    cluster.store.put(BUCKET, "greeting", "hello\n");
    let mut objects = claim_objects(cluster, "crowd").to_vec();
    objects.push(deployment("crowd", u32::try_from(PODS)?));
    cluster.apply(&objects)?;
    rolled_out(cluster, "crowd")?;
    let pods = pods_of(cluster, "crowd")?;
    ensure!(pods.len() == PODS, "{} Pods", pods.len());
    for (number, pod) in pods.iter().enumerate() {
        let line = format!("cat /data/greeting && echo {number} >/data/{number}");
        let read = Container::of(cluster, pod)?.shell(&line)?;
        ensure!(read == "hello\n", "Pod {number} reads {read:?}");
    }
    let daemons = processes::daemons(&cluster.node).len();
    ensure!(daemons == 1, "{daemons} daemons serve one volume");
    let keys = cluster.store.keys(BUCKET).len();
    ensure!(keys == PODS + 1, "the bucket has {keys} objects");
    Ok(Outcome::Done)
}
