//! The DaemonSet, as its README installs, upgrades and removes it.

use super::Outcome;
use crate::cluster::{BUCKET, Cluster};
use crate::container::Container;
use crate::parts::{NODE, PLUGINS};
use crate::readers::Reader;
use crate::{image, kubectl, pods};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the manifests name, and what it is upgraded to.
const IMAGES: [&str; 2] = ["0.1.0", "0.1.1"];

/// kubelet looks for drivers by itself about once a minute, if there is a Pod with volumes at all: an
/// installer that is ready by then has brought it about.
const READY: Duration = Duration::from_secs(40);

const NAMESPACE: &str = "--namespace=kube-system";

/// The overlay that finds everything out by itself.
pub(crate) fn full(cluster: &Cluster) -> Result<Outcome> {
    life(cluster, &Kustomize("/opt/deploy/full"))
}

/// The overlay without any privilege.
pub(crate) fn minimal(cluster: &Cluster) -> Result<Outcome> {
    life(cluster, &Kustomize("/opt/deploy/minimal"))
}

/// A way to install it.
trait Way {
    fn install(&self, cluster: &Cluster) -> Result<()>;
    fn upgrade(&self, cluster: &Cluster) -> Result<()>;
    fn remove(&self, cluster: &Cluster) -> Result<()>;
}

/// An overlay, by its directory on the node.
struct Kustomize(&'static str);

impl Way for Kustomize {
    fn install(&self, cluster: &Cluster) -> Result<()> {
        cluster.kubectl(&["apply", "-k", self.0]).map(drop)
    }

    fn upgrade(&self, cluster: &Cluster) -> Result<()> {
        let image = format!("*=alicloud-oss-flexvolume:{}", IMAGES[1]);
        cluster
            .kubectl(&[
                NAMESPACE,
                "set",
                "image",
                "daemonset/alicloud-oss-installer",
                &image,
            ])
            .map(drop)
    }

    fn remove(&self, cluster: &Cluster) -> Result<()> {
        cluster
            .kubectl(&["delete", "--wait=false", "-k", self.0])
            .map(drop)
    }
}

/// Installed on an idle node, used, upgraded under a reader, removed: the driver outlives the DaemonSet, and
/// goes with `uninstall`.
fn life(cluster: &Cluster, way: &dyn Way) -> Result<Outcome> {
    for tag in IMAGES {
        import(cluster, tag)?;
    }
    // A node that has never had the driver.
    std::fs::remove_dir_all(cluster.node.path(PLUGINS).join("alicloud~oss"))
        .context("remove the driver")?;
    cluster.node.systemctl(&["restart", "kubelet"])?;
    let result = installed(cluster, way);
    // The other checks expect the driver as it was.
    cluster.kubectl(&[
        NAMESPACE,
        "delete",
        "daemonset,job",
        "--all",
        "--wait=false",
    ])?;
    pods::none_left(cluster, NAMESPACE)?;
    cluster.reinstall_driver()?;
    result.map(|()| Outcome::Done)
}

fn installed(cluster: &Cluster, way: &dyn Way) -> Result<()> {
    let began = Instant::now();
    way.install(cluster)?;
    rolled_out(cluster, READY)?;
    println!(
        "         ready on an idle node after {:.1} s",
        began.elapsed().as_secs_f64()
    );

    cluster.store.put(BUCKET, "line", "a line\n");
    pods::start(
        cluster,
        "reader",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    let reader = Reader::start(
        &Container::of_pod(cluster, "reader")?,
        "/data/line",
        "a line",
    )?;
    way.upgrade(cluster)?;
    rolled_out(cluster, Duration::from_secs(90)).context("the upgrade")?;
    pods::start(
        cluster,
        "upgraded",
        pods::spec(&pods::volume(cluster, json!({}))),
    )?;
    way.remove(cluster)?;
    pods::none_left(cluster, NAMESPACE)?;
    let driver = cluster.node.path(PLUGINS).join("alicloud~oss/oss");
    ensure!(driver.exists(), "the driver has gone with the DaemonSet");
    reader.finish()?.check(0)?;
    uninstall(cluster)?;
    for pod in ["reader", "upgraded"] {
        pods::delete(cluster, pod)?;
    }
    cluster
        .kubectl(&[
            NAMESPACE,
            "wait",
            "--for=condition=Complete",
            "job/uninstall",
            "--timeout=90s",
        ])
        .context("uninstall --drain after the last volume")?;
    ensure!(!driver.exists(), "the driver is there after uninstall");
    Ok(())
}

/// The Job of the installer's README; it waits for the last volume.
fn uninstall(cluster: &Cluster) -> Result<()> {
    cluster.apply(&[json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "uninstall", "namespace": "kube-system"},
        "spec": {"template": {
            "metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/uninstall": "unconfined"}},
            "spec": {
                "nodeName": NODE, "restartPolicy": "OnFailure", "hostPID": true,
                "automountServiceAccountToken": false, "tolerations": [{"operator": "Exists"}],
                "containers": [{
                    "name": "uninstall",
                    "image": format!("alicloud-oss-flexvolume:{}", IMAGES[0]),
                    "command": ["/oss-installer", "uninstall", "--drain", "--host-root=/proc/1/root"],
                    "securityContext": {
                        "runAsUser": 0, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE", "SYS_ADMIN", "SYS_CHROOT", "DAC_OVERRIDE", "CHOWN", "SETUID", "SETGID"]},
                    },
                }],
            },
        }},
    })])
}

fn rolled_out(cluster: &Cluster, limit: Duration) -> Result<()> {
    let timeout = format!("--timeout={}s", limit.as_secs());
    let waited = cluster.kubectl(&[
        NAMESPACE,
        "rollout",
        "status",
        "daemonset/alicloud-oss-installer",
        &timeout,
    ]);
    waited.map(drop).with_context(|| {
        let says = |arguments: &[&str]| kubectl::run(&cluster.node, arguments).unwrap_or_default();
        format!(
            "the DaemonSet: {} {}",
            says(&[NAMESPACE, "get", "pods", "-o", "wide"]),
            says(&[
                NAMESPACE,
                "get",
                "events",
                "-o",
                "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}"
            ])
        )
    })
}

/// Loads the image of the installer under this tag. The later one has another build of the same driver: the
/// bytes after the end of a program do nothing.
fn import(cluster: &Cluster, tag: &str) -> Result<()> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let copy = |from: &Path, name: &str| -> Result<std::path::PathBuf> {
        let to = directory.path().join(name);
        let mut bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
        if tag != IMAGES[0] {
            bytes.extend(tag.as_bytes());
        }
        std::fs::write(&to, bytes)?;
        std::fs::set_permissions(&to, std::fs::metadata(from)?.permissions())?;
        Ok(to)
    };
    let programs = [
        copy(&cluster.driver, "oss")?,
        copy(&cluster.installer, "oss-installer")?,
    ];
    let programs = [programs[0].as_path(), programs[1].as_path()];
    let name = format!("docker.io/library/alicloud-oss-flexvolume:{tag}");
    image::of_programs(
        &programs,
        &name,
        "/oss-installer",
        &cluster.shared("installer.tar"),
    )?;
    cluster.import("installer.tar")
}
