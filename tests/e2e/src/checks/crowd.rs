//! Many Pods on one node.

use super::Outcome;
use super::volumes::{claim_objects, deployment, pods_of, rolled_out};
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::processes;
use anyhow::{Result, ensure};
use serde_json::json;

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

/// Five Pods with twenty volumes each, which are the same twenty.
pub(crate) fn twenty_volumes_of_five(cluster: &Cluster) -> Result<Outcome> {
    const VOLUMES: usize = 20;
    let (mut objects, mut volumes, mut mounts) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..VOLUMES {
        let name = format!("v{number}");
        cluster
            .store
            .put(BUCKET, &format!("{name}/greeting"), name.clone());
        let mut claim = claim_objects(cluster, &name);
        claim[0]["spec"]["flexVolume"]["options"]["path"] = json!(format!("/{name}"));
        objects.extend(claim);
        volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        mounts.push(json!({"name": name, "mountPath": format!("/{name}")}));
    }
    let mut pods = deployment("v0", 5);
    let spec = &mut pods["spec"]["template"]["spec"];
    spec["volumes"] = json!(volumes);
    spec["containers"][0]["volumeMounts"] = json!(mounts);
    objects.push(pods);
    cluster.apply(&objects)?;
    rolled_out(cluster, "v0")?;
    for pod in pods_of(cluster, "v0")? {
        let read = Container::of(cluster, &pod)?
            .shell("for n in $(ls -d /v*); do cat $n/greeting; echo; done")?;
        let mut read: Vec<&str> = read.lines().collect();
        read.sort_by_key(|name| name[1..].parse::<usize>().ok());
        let expected: Vec<String> = (0..VOLUMES).map(|number| format!("v{number}")).collect();
        ensure!(read == expected, "a Pod reads {read:?}");
    }
    let daemons = processes::daemons(&cluster.node).len();
    ensure!(
        daemons == VOLUMES,
        "{daemons} daemons serve {VOLUMES} volumes"
    );
    Ok(Outcome::Done)
}
