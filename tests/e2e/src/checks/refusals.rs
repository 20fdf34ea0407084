//! Volumes that cannot be, and what their authors are told.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster, KEY_ID};
use crate::{events, pods, processes};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// A wrong secret is named as such, and the Pod starts once the Secret is right.
pub(crate) fn wrong_key(cluster: &Cluster) -> Result<Outcome> {
    let wrong = "wRoNgSecretOfTheE2e";
    cluster.watch_secret(wrong);
    let volume = pods::volume_of_secret(cluster, "oss-key", json!({}))?;
    cluster.apply(&[pods::secret("oss-key", KEY_ID, wrong)])?;
    cluster.apply(&[pods::pod("wrong", pods::spec(&volume))])?;
    events::wait(cluster, "wrong", |message| {
        message.to_lowercase().contains("invalid credentials")
    })?;
    pods::volume_of_secret(cluster, "oss-key", json!({}))?;
    pods::ready(cluster, "wrong").context("after the Secret was put right")?;
    Ok(Outcome::Done)
}

/// A bucket that is not there.
pub(crate) fn missing_bucket(cluster: &Cluster) -> Result<Outcome> {
    let volume = pods::volume(cluster, json!({"options": {"bucket": "missing-bucket"}}));
    cluster.apply(&[pods::pod("missing", pods::spec(&volume))])?;
    events::wait(cluster, "missing", |message| {
        message.contains("not found") && message.contains("check bucket and url")
    })?;
    Ok(Outcome::Done)
}

/// Another tenant's key, which the store knows and the bucket does not admit.
pub(crate) fn another_tenants_key(cluster: &Cluster) -> Result<Outcome> {
    let (id, secret) = ("LTAIother", "oThErTenantsSecret");
    cluster.watch_secret(secret);
    cluster.store.add_key(id, secret);
    cluster.store.restrict(BUCKET, &[KEY_ID]);
    // The rightful one is mounted already: what it has must not serve the other.
    pods::start(
        cluster,
        "rightful",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    let volume = pods::volume(
        cluster,
        json!({"options": {"akId": id, "akSecret": secret}}),
    );
    cluster.apply(&[pods::pod("other", pods::spec(&volume))])?;
    events::wait(cluster, "other", |message| {
        message.contains("mount command failed")
    })?;
    let other = cluster.get(&["pod", "other"])?;
    ensure!(
        other["status"]["phase"] == "Pending",
        "the Pod is {}",
        other["status"]["phase"]
    );
    Ok(Outcome::Done)
}

/// Options that would read, write or run something on the node, each refused by its name.
pub(crate) fn hostile_options(cluster: &Cluster) -> Result<Outcome> {
    let hostile = [
        (
            "cache",
            json!({"otherOpts": "-o use_cache=/etc -o del_cache"}),
            "use_cache",
        ),
        (
            "process",
            json!({"otherOpts": "-o credential_process=/pwned"}),
            "credential_process",
        ),
        (
            "escape",
            json!({"otherOpts": "-o cred\\ential_process=/pwned"}),
            "otherOpts",
        ),
        ("comma", json!({"otherOpts": "-o umask=0,suid,dev"}), "suid"),
        (
            "log",
            json!({"otherOpts": "-o logfile=/etc/passwd"}),
            "logfile",
        ),
        ("bucket", json!({"bucket": "../../etc"}), "bucket"),
        ("path", json!({"path": "/../../etc"}), "path"),
        ("metadata", json!({"url": "http://100.100.100.200"}), "url"),
        ("option", json!({"url": "http://store,suid"}), "url"),
    ];
    let made: Vec<Value> = hostile
        .iter()
        .map(|(name, options, _)| {
            pods::pod(
                name,
                pods::spec(&pods::volume(cluster, json!({"options": options}))),
            )
        })
        .collect();
    cluster.apply(&made)?;
    for (name, _, part) in hostile {
        events::wait(cluster, name, |message| message.contains(part))
            .with_context(|| format!("the Pod {name:?}"))?;
    }
    let daemons = processes::daemons(&cluster.node);
    ensure!(daemons.is_empty(), "a daemon was started: {daemons:?}");
    Ok(Outcome::Done)
}
