//! Parts of a volume, and mount propagation.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::pods;
use anyhow::{Result, ensure};
use serde_json::json;

/// Two subPaths of one volume: a directory to read and write, and a file to read.
pub(crate) fn sub_paths(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "reports/2026/", "");
    cluster.store.put(BUCKET, "reports/2026/first", "one\n");
    cluster.store.put(BUCKET, "settings.conf", "key = value\n");
    let mut spec = pods::spec(&pods::volume(cluster, json!({})));
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/reports", "subPath": "reports/2026"},
        {"name": "data", "mountPath": "/settings.conf", "subPath": "settings.conf"},
        {"name": "data", "mountPath": "/new", "subPath": "made/by/kubelet"},
    ]);
    pods::start(cluster, "parts", spec)?;
    let container = Container::of_pod(cluster, "parts")?;
    let read = container.shell("ls /reports && cat /reports/first /settings.conf")?;
    ensure!(read == "first\none\nkey = value\n", "{read:?}");
    container.shell("echo two >/reports/second && echo three >/new/third")?;
    for (key, expected) in [
        ("reports/2026/second", "two\n"),
        ("made/by/kubelet/third", "three\n"),
    ] {
        let object = cluster.store.object(BUCKET, key);
        ensure!(
            object.as_deref() == Some(expected.as_bytes()),
            "{key} is {object:?}"
        );
    }
    pods::delete(cluster, "parts")?;
    Ok(Outcome::Done)
}

/// A container whose mount of the volume receives the node's later mounts.
pub(crate) fn host_to_container(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "greeting", "hello\n");
    let mut spec = pods::spec(&pods::volume(cluster, json!({})));
    spec["containers"][0]["volumeMounts"][0]["mountPropagation"] = json!("HostToContainer");
    pods::start(cluster, "slave", spec)?;
    let read = Container::of_pod(cluster, "slave")?.run(&["cat", "/data/greeting"])?;
    ensure!(read == "hello\n", "/data/greeting reads {read:?}");
    pods::delete(cluster, "slave")?;
    Ok(Outcome::Done)
}
