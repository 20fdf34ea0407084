//! Volumes of Pods, as the documents describe them.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::pods;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// A Pod with the bucket and its key pair in its own spec reads, writes, lists and removes.
pub(crate) fn inline(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "greeting", "hello\n");
    pods::start(
        cluster,
        "inline",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    let container = Container::of_pod(cluster, "inline")?;
    let read = container.run(&["cat", "/data/greeting"])?;
    ensure!(read == "hello\n", "/data/greeting reads {read:?}");
    container
        .shell("echo from the Pod >/data/written && mkdir /data/directory && rm /data/greeting")?;
    let written = cluster.store.object(BUCKET, "written");
    ensure!(
        written.as_deref() == Some(b"from the Pod\n"),
        "the object is {written:?}"
    );
    let keys = cluster.store.keys(BUCKET);
    ensure!(keys == ["directory/", "written"], "the bucket has {keys:?}");
    let listed = container.run(&["ls", "/data"])?;
    ensure!(listed == "directory\nwritten\n", "/data has {listed:?}");
    pods::delete(cluster, "inline")?;
    Ok(Outcome::Done)
}

/// The objects of a claim on a bucket: a PersistentVolume, and what binds it.
pub(crate) fn claim_objects(cluster: &Cluster, name: &str) -> [Value; 2] {
    let size = json!({"storage": "5Gi"});
    [
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "labels": {"volume": name}},
            "spec": {
                "capacity": size, "accessModes": ["ReadWriteMany"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "flexVolume": pods::volume(cluster, json!({})),
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": size},
                "selector": {"matchLabels": {"volume": name}},
            },
        }),
    ]
}

/// A Deployment of Pods on the claim `name`.
pub(crate) fn deployment(name: &str, replicas: u32) -> Value {
    let mut spec = pods::spec(&json!({}));
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}

/// The Pods of a Deployment that are not being deleted.
pub(crate) fn pods_of(cluster: &Cluster, name: &str) -> Result<Vec<Value>> {
    let pods = cluster.get(&["pods", "-l", &format!("app={name}")])?;
    let pods = pods["items"].as_array().context("a list of Pods")?.clone();
    Ok(pods
        .into_iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        .collect())
}

pub(crate) fn rolled_out(cluster: &Cluster, name: &str) -> Result<()> {
    cluster
        .kubectl(&[
            "rollout",
            "status",
            &format!("deployment/{name}"),
            "--timeout=180s",
        ])
        .map(drop)
}

/// A Deployment of three on a claim: what one Pod writes the others see, and whoever comes after it.
pub(crate) fn deployment_of_three(cluster: &Cluster) -> Result<Outcome> {
    let mut objects = claim_objects(cluster, "shared").to_vec();
    objects.push(deployment("shared", 3));
    cluster.apply(&objects)?;
    rolled_out(cluster, "shared")?;
    let before = pods_of(cluster, "shared")?;
    ensure!(before.len() == 3, "{} Pods", before.len());
    let writer = before[0]["metadata"]["name"].as_str().context("a name")?;
    Container::of(cluster, &before[0])?.run(&["touch", "/data/touched"])?;
    for pod in &before {
        Container::of(cluster, pod)?
            .run(&["stat", "/data/touched"])
            .context("another Pod of the Deployment")?;
    }
    pods::delete(cluster, writer)?;
    rolled_out(cluster, "shared")?;
    let after = pods_of(cluster, "shared")?;
    let new = after.iter().find(|pod| {
        before
            .iter()
            .all(|known| known["metadata"]["uid"] != pod["metadata"]["uid"])
    });
    let new = new.context("no Pod has taken the place of the deleted one")?;
    Container::of(cluster, new)?.run(&["stat", "/data/touched"])?;
    Ok(Outcome::Done)
}

/// The key pair in a Secret, and a volume that nobody can write to.
pub(crate) fn secret_read_only(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "greeting", "hello\n");
    let volume = pods::volume_of_secret(cluster, "oss-key", json!({"readOnly": true}))?;
    pods::start(cluster, "reader", pods::spec(&volume))?;
    let container = Container::of_pod(cluster, "reader")?;
    let read = container.run(&["cat", "/data/greeting"])?;
    ensure!(read == "hello\n", "/data/greeting reads {read:?}");
    for line in [
        "touch /data/new",
        "rm /data/greeting",
        "mkdir /data/directory",
    ] {
        let refused = container.shell(line).err().context(line)?;
        ensure!(
            refused.to_string().contains("Read-only file system"),
            "{line}: {refused:#}"
        );
    }
    ensure!(
        cluster.store.keys(BUCKET) == ["greeting"],
        "the bucket has changed"
    );
    Ok(Outcome::Done)
}

/// A volume inside the volume: its files are the Pod's own, those around it the bucket's.
pub(crate) fn empty_dir_inside(cluster: &Cluster) -> Result<Outcome> {
    let mut spec = pods::spec(&pods::volume(cluster, json!({})));
    spec["volumes"]
        .as_array_mut()
        .context("volumes")?
        .push(json!({"name": "cache", "emptyDir": {}}));
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "cache", "mountPath": "/data/cache"},
    ]);
    pods::start(cluster, "nested", spec)?;
    let container = Container::of_pod(cluster, "nested")?;
    container
        .shell("echo inner >/data/cache/file && echo outer >/data/file && cat /data/cache/file")?;
    ensure!(
        cluster.store.object(BUCKET, "file").is_some(),
        "/data/file is not in the bucket"
    );
    ensure!(
        cluster.store.object(BUCKET, "cache/file").is_none(),
        "/data/cache/file is in the bucket"
    );
    pods::delete(cluster, "nested")?;
    Ok(Outcome::Done)
}
