//! Parts of a volume, and mount propagation.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::{pods, processes};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::time::Duration;

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

/// Mounts of parts of a volume outlive its daemon, and a container that starts again has them again.
pub(crate) fn sub_paths_after_kills(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "reports/line", "a line\n");
    cluster.store.put(BUCKET, "settings.conf", "key = value\n");
    let mut spec = pods::spec(&pods::volume(cluster, json!({})));
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/reports", "subPath": "reports"},
        {"name": "data", "mountPath": "/settings.conf", "subPath": "settings.conf"},
    ]);
    pods::start(cluster, "parts", spec)?;
    let read = |when: &str| {
        let read = Container::of_pod(cluster, "parts")?
            .shell("cat /reports/line /settings.conf")
            .context(when.to_owned())?;
        ensure!(read == "a line\nkey = value\n", "{when}: {read:?}");
        anyhow::Ok(())
    };
    read("at first")?;
    for daemon in processes::daemons(&cluster.node) {
        daemon.handle.kill();
        daemon.handle.wait(Duration::from_secs(30));
    }
    read("after the daemon was killed")?;
    let container = Container::of_pod(cluster, "parts")?;
    let first = container.process()?;
    first.kill();
    ensure!(
        first.wait(Duration::from_secs(30)),
        "the container does not end"
    );
    cluster.kubectl(&[
        "wait",
        "pod/parts",
        "--timeout=120s",
        "--for=jsonpath={.status.containerStatuses[0].restartCount}=1",
    ])?;
    pods::ready(cluster, "parts")?;
    read("after the container was started again")?;
    pods::delete(cluster, "parts")?;
    Ok(Outcome::Done)
}
