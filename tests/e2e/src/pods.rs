//! Objects as their authors write them.

use crate::cluster::{BUCKET, Cluster, KEY_ID, SECRET};
use crate::image::{BUSYBOX, IDLE};
use anyhow::{Result, bail};
use serde_json::{Value, json};

/// `changes` over `value`, object by object; a null removes.
pub(crate) fn merge(value: &mut Value, changes: Value) {
    match (value, changes) {
        (Value::Object(value), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    value.remove(&key);
                } else {
                    merge(value.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (value, changes) => *value = changes,
    }
}

/// The flexVolume of the store's bucket, with the key pair in its options; `changes` go over it.
pub(crate) fn volume(cluster: &Cluster, changes: Value) -> Value {
    let mut volume = json!({
        "driver": "alicloud/oss",
        "options": {"bucket": BUCKET, "url": cluster.store.url(), "akId": KEY_ID, "akSecret": SECRET},
    });
    merge(&mut volume, changes);
    volume
}

/// The same with a Secret, which is made.
pub(crate) fn volume_of_secret(cluster: &Cluster, name: &str, changes: Value) -> Result<Value> {
    cluster.apply(&[secret(name, KEY_ID, SECRET)])?;
    let mut volume = volume(
        cluster,
        json!({"options": {"akId": null, "akSecret": null}, "secretRef": {"name": name}}),
    );
    merge(&mut volume, changes);
    Ok(volume)
}

pub(crate) fn secret(name: &str, id: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "alicloud/oss", "metadata": {"name": name},
        "stringData": {"akId": id, "akSecret": secret},
    })
}

/// The spec of a Pod that does nothing with `flex_volume` at `/data`.
pub(crate) fn spec(flex_volume: &Value) -> Value {
    json!({
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "containers": [{
            "name": "main",
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": IDLE,
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }],
        "volumes": [{"name": "data", "flexVolume": flex_volume}],
    })
}

/// A Pod of this spec.
pub(crate) fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"e2e": "yes"}}, "spec": spec})
}

/// Makes a Pod and waits until it is ready.
pub(crate) fn start(cluster: &Cluster, name: &str, spec: Value) -> Result<()> {
    cluster.apply(&[pod(name, spec)])?;
    ready(cluster, name)
}

/// Waits until a Pod is ready; what its events say is in the error.
pub(crate) fn ready(cluster: &Cluster, name: &str) -> Result<()> {
    let waited = cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        &format!("pod/{name}"),
        "--timeout=120s",
    ]);
    if let Err(error) = waited {
        bail!("{error:#}; events: {}", events(cluster, name)?);
    }
    Ok(())
}

/// The messages of a Pod's events.
pub(crate) fn events(cluster: &Cluster, name: &str) -> Result<String> {
    let events = cluster.get(&[
        "events",
        &format!("--field-selector=involvedObject.name={name}"),
    ])?;
    let messages = events["items"].as_array().into_iter().flatten();
    let messages: Vec<&str> = messages
        .filter_map(|event| event["message"].as_str())
        .collect();
    Ok(messages.join("; "))
}

/// Deletes a Pod and waits until kubelet has taken everything of it away.
pub(crate) fn delete(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["delete", "pod", name, "--wait=false"])?;
    gone(cluster, &format!("pod/{name}"))
}

/// Waits until an object is gone.
pub(crate) fn gone(cluster: &Cluster, what: &str) -> Result<()> {
    let waited = cluster.kubectl(&["wait", "--for=delete", what, "--timeout=120s"]);
    match waited {
        Err(error) if !error.to_string().contains("not found") => Err(error),
        _ => Ok(()),
    }
}

/// Waits until no Pod is left in a namespace, `--namespace=NAME`.
pub(crate) fn none_left(cluster: &Cluster, namespace: &str) -> Result<()> {
    let waited = cluster.kubectl(&[
        namespace,
        "wait",
        "--for=delete",
        "pod",
        "--all",
        "--timeout=120s",
    ]);
    match waited {
        Err(error) if !error.to_string().contains("no matching resources") => Err(error),
        _ => Ok(()),
    }
}
