//! Pods that do not run as root.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::pods;
use anyhow::{Result, ensure};
use serde_json::json;

/// The volume's group is none but a supplementary one of the Pod's processes: they read and write, and no
/// object is changed for it.
pub(crate) fn supplementary_group(cluster: &Cluster) -> Result<Outcome> {
    cluster.store.put(BUCKET, "greeting", "hello\n");
    cluster.store.put(BUCKET, "directory/", "");
    cluster.store.put(BUCKET, "directory/inner", "inner\n");
    let before = cluster.store.info(BUCKET, "greeting");
    let mut spec = pods::spec(&pods::volume(cluster, json!({})));
    spec["securityContext"] = json!({
        "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "runAsNonRoot": true,
    });
    pods::start(cluster, "group", spec)?;
    let container = Container::of_pod(cluster, "group")?;
    let id = container.shell("id -u; id -G")?;
    ensure!(id == "1000\n1000 2000\n", "the container runs as {id:?}");
    let read = container.shell("ls /data && cat /data/greeting /data/directory/inner")?;
    ensure!(read == "directory\ngreeting\nhello\ninner\n", "{read:?}");
    container.shell(
        "echo new >/data/new && echo in >/data/directory/new && mkdir /data/made && \
         echo more >>/data/new && rm /data/directory/inner && cat /data/new",
    )?;
    let object = cluster.store.object(BUCKET, "new");
    ensure!(
        object.as_deref() == Some(b"new\nmore\n"),
        "the object is {object:?}"
    );
    ensure!(
        cluster.store.info(BUCKET, "greeting") == before,
        "an object that nobody wrote has changed"
    );
    pods::delete(cluster, "group")?;
    Ok(Outcome::Done)
}
