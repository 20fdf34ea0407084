//! A container of a Pod that runs, as the node sees it.

use crate::cluster::Cluster;
use crate::processes;
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use support::Pidfd;

/// What containerd keeps of each container.
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";

/// A container that runs.
pub(crate) struct Container<'c> {
    cluster: &'c Cluster,
    id: String,
}

impl<'c> Container<'c> {
    /// The first container of the Pod `name`, which must run.
    pub(crate) fn of_pod(cluster: &'c Cluster, name: &str) -> Result<Self> {
        let pod = cluster.get(&["pod", name])?;
        Self::of(cluster, &pod).with_context(|| format!("the container of {name}"))
    }

    /// The first container of a Pod as the API describes it.
    pub(crate) fn of(cluster: &'c Cluster, pod: &Value) -> Result<Self> {
        let id = pod["status"]["containerStatuses"][0]["containerID"]
            .as_str()
            .and_then(|id| id.strip_prefix("containerd://"))
            .context("it has no container yet")?
            .to_owned();
        Ok(Self { cluster, id })
    }

    /// Prepares a program in the container, with the container's user and groups.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("--exec-id=e2e-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = self.cluster.node.command("ctr");
        command
            .args(["--namespace=k8s.io", "task", "exec", &name, &self.id])
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Runs a program in the container and returns its standard output.
    ///
    /// # Errors
    /// If it does not succeed; the message has what it printed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("start ctr")?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{words:?} in the container: {} {}",
                stdout.trim(),
                stderr.trim()
            );
        }
        Ok(stdout.into_owned())
    }

    /// [`Container::run`] for a line of its shell.
    pub(crate) fn shell(&self, line: &str) -> Result<String> {
        self.run(&["sh", "-c", line])
    }

    /// The path by which this machine reaches a file of the container: the same mounts that its processes see.
    pub(crate) fn path(&self, inside: &str) -> Result<PathBuf> {
        let pid = self.pid()?;
        Ok(self
            .cluster
            .node
            .path(format!("/proc/{pid}/root"))
            .join(inside.trim_start_matches('/')))
    }

    /// Its first process.
    pub(crate) fn process(&self) -> Result<Pidfd> {
        // As this machine numbers it: the first of its ids, from the outermost namespace on.
        let status = self
            .cluster
            .node
            .path(format!("/proc/{}/ns/pid", self.pid()?));
        let own = std::fs::metadata(status)
            .context("read the namespace of the container")?
            .ino();
        let known = processes::all(&self.cluster.node)
            .into_iter()
            .find(|process| {
                let first = std::fs::read_to_string(format!("/proc/{}/status", process.pid))
                    .unwrap_or_default();
                let is_first = first
                    .lines()
                    .any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
                let namespace = std::fs::metadata(format!("/proc/{}/ns/pid", process.pid));
                is_first && namespace.is_ok_and(|namespace| namespace.ino() == own)
            });
        Ok(known.context("the container's process")?.handle)
    }

    /// The id of its first process on the node.
    pub(crate) fn pid(&self) -> Result<u32> {
        let file = self
            .cluster
            .node
            .path(format!("{TASKS}/{}/init.pid", self.id));
        let pid =
            std::fs::read_to_string(file).context("read the id of the container's process")?;
        pid.trim()
            .parse()
            .context("the id of the container's process")
    }
}
