//! A node to measure on: mounts with a kubelet directory, a node configuration, as many
//! other mounts as wanted, and the driver called as kubelet calls it. Every node has the same paths,
//! for their lengths count.

use crate::run::{self, Run};
use crate::store::{KEY_ID, SECRET, bucket};
use anyhow::{Context as _, Result, ensure};
use nix::mount::MsFlags;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::namespace::{self, MountNamespace};
use support::volume_options;

/// Where a node's own file system is mounted. Nothing of it is ever written to the machine.
pub(crate) const ROOT: &str = "/mnt";
/// The node configuration, and the variable that names it.
pub(crate) const CONFIG: &str = "/mnt/config.json";
pub(crate) const CONFIG_VARIABLE: &str = "OSS_FLEXVOLUME_CONFIG";
/// What the driver knows of its volumes.
const STATE: &str = "/mnt/state";
pub(crate) const KUBELET: &str = "/mnt/kubelet";
/// Where the driver is installed: only there `init` leaves its stamp.
pub(crate) const INSTALLED: &str = "/mnt/plugins/alicloud~oss/oss";
/// Where daemons have their temporary files: in memory, for a disk's moods are not compared here.
pub(crate) const TEMPORARY: &str = "/mnt/tmp";
/// The answer to a call that succeeded.
pub(crate) const SUCCESS: &str = "{\"status\":\"Success\"}\n";

/// A node.
pub(crate) struct Node {
    mounts: MountNamespace,
    driver: PathBuf,
    url: String,
}

impl Node {
    /// A node in a copy of `base`, with `others` mounts that are not the driver's. This thread is
    /// on it from now on.
    pub(crate) fn new(
        base: &MountNamespace,
        driver: &Path,
        url: &str,
        others: usize,
    ) -> Result<Self> {
        Self::lay_out(base.copy()?, driver, url, others, "direct")
    }

    /// A node of the machine that systemd runs here, in the mounts that it shows to its services.
    pub(crate) fn under_systemd(driver: &Path, url: &str) -> Result<Self> {
        Self::lay_out(MountNamespace::current()?, driver, url, 0, "unit")
    }

    fn lay_out(
        mounts: MountNamespace,
        driver: &Path,
        url: &str,
        others: usize,
        launcher: &str,
    ) -> Result<Self> {
        ensure!(
            !driver.starts_with(ROOT),
            "the driver lies below {ROOT}, where nodes are laid out: copy it elsewhere"
        );
        namespace::mount_new("tmpfs", Path::new(ROOT), "")?;
        let config = json!({
            "ossfs": "s3fs",
            "stateDir": STATE,
            "logFile": "/mnt/log/oss.log",
            "launcher": launcher,
            "temporaryDir": TEMPORARY,
            "mountTimeoutSeconds": 300,
            "unmountTimeoutSeconds": 300,
        });
        std::fs::write(CONFIG, config.to_string()).context("write the configuration")?;
        std::fs::create_dir(TEMPORARY).context("make a directory")?;
        let installed = Path::new(INSTALLED);
        std::fs::create_dir_all(installed.parent().unwrap_or(installed))
            .context("make a directory")?;
        // Not copied: a program starts more slowly from memory than from a disk's cache.
        File::create(installed).context("make a file")?;
        namespace::bind(driver, installed)?;
        let kubelet = Path::new(KUBELET);
        std::fs::create_dir(kubelet).context("make the kubelet directory")?;
        if launcher == "direct" {
            namespace::bind(kubelet, kubelet)?;
            // As under systemd, where every mount is.
            namespace::propagate(kubelet, MsFlags::MS_SHARED)?;
        }
        let source = Path::new("/mnt/other");
        std::fs::create_dir(source).context("make a directory")?;
        for number in 0..others {
            // Such as a node has most of.
            let path = kubelet
                .join("pods")
                .join(uid(100_000 + number))
                .join("volumes/kubernetes.io~projected/kube-api-access-x7k2p");
            std::fs::create_dir_all(&path).context("make a directory")?;
            namespace::bind(source, &path)?;
        }
        Ok(Self {
            mounts,
            driver: installed.to_owned(),
            url: url.to_owned(),
        })
    }

    /// Puts this thread on the node.
    pub(crate) fn enter(&self) -> Result<()> {
        self.mounts.enter()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn driver(&self) -> &Path {
        &self.driver
    }

    /// The time of `init`.
    pub(crate) fn init(&self) -> Result<Duration> {
        Ok(self.call(&["init"])?.time)
    }

    /// Mounts the bucket of this number for a Pod, and returns the time of the call.
    pub(crate) fn mount(&self, pod: usize, number: usize) -> Result<Duration> {
        self.mount_with(pod, number, json!({}))
    }

    /// The same with `more` options of the volume.
    pub(crate) fn mount_with(&self, pod: usize, number: usize, more: Value) -> Result<Duration> {
        let target = self.make_target(pod)?;
        let options = self.options(number, more).to_string();
        self.success(&["mount", &target, &options])
    }

    /// Unmounts a Pod's volume, and returns the time of the call.
    pub(crate) fn unmount(&self, pod: usize) -> Result<Duration> {
        let target = target(pod);
        let time = self.success(&["unmount", &target])?;
        std::fs::remove_dir(&target).context("remove TARGET")?;
        Ok(time)
    }

    /// Has the driver know of no probe of the only volume: it makes one, as it does seconds after the last.
    pub(crate) fn let_probe_pass(&self) -> Result<()> {
        let note = Path::new(STATE)
            .join("volumes")
            .join(self.volume()?)
            .join("probed");
        match std::fs::remove_file(note) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).context("remove the driver's record of its last probe")
            }
            _ => Ok(()),
        }
    }

    /// What the process of the only volume answers over its control socket.
    pub(crate) fn status(&self) -> Result<Value> {
        let volumes = Path::new(STATE).join("volumes");
        let socket = volumes.join(self.volume()?).join("socket");
        let mut stream = UnixStream::connect(socket).context("connect to a volume's process")?;
        stream
            .write_all(b"{\"version\":1,\"call\":\"status\"}\n")
            .context("ask a volume's process")?;
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .context("read the answer of a volume's process")?;
        let answer: Value = serde_json::from_str(&line).context("read the status of a volume")?;
        Ok(answer["status"].clone())
    }

    /// The size of what the process of the only volume keeps in files for its successor, in bytes.
    pub(crate) fn tables(&self) -> Result<u64> {
        let directory = Path::new(STATE).join("volumes").join(self.volume()?);
        ["nodes", "inflight"]
            .iter()
            .map(|name| {
                let file = std::fs::metadata(directory.join(name));
                Ok(file.with_context(|| format!("find {name}"))?.len())
            })
            .sum()
    }

    /// The name that the driver has for the only volume.
    pub(crate) fn volume(&self) -> Result<String> {
        let volumes = Path::new(STATE).join("volumes");
        let entries = std::fs::read_dir(volumes).context("list the driver's volumes")?;
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        ensure!(names.len() == 1, "there are {} volumes", names.len());
        Ok(names[0].to_string_lossy().into_owned())
    }

    /// TARGET of a Pod's volume, made as kubelet makes it.
    pub(crate) fn make_target(&self, pod: usize) -> Result<String> {
        let target = target(pod);
        std::fs::create_dir_all(&target).context("make TARGET")?;
        Ok(target)
    }

    /// What kubelet hands over for the bucket of this number, with `more` over it.
    pub(crate) fn options(&self, number: usize, more: Value) -> Value {
        let mut all = json!({
            "otherOpts": "-o use_path_request_style -o allow_other",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        volume_options(&bucket(number), &self.url, KEY_ID, SECRET, &all)
    }

    fn success(&self, arguments: &[&str]) -> Result<Duration> {
        let run = self.call(arguments)?;
        ensure!(run.words == SUCCESS, "{}: {}", arguments[0], run.words);
        Ok(run.time)
    }

    fn call(&self, arguments: &[&str]) -> Result<Run> {
        run::run(&self.driver, arguments, &[(CONFIG_VARIABLE, CONFIG)])
    }
}

/// TARGET of a Pod's volume.
pub(crate) fn target(pod: usize) -> String {
    format!("{KUBELET}/pods/{}/volumes/alicloud~oss/oss1", uid(pod))
}

fn uid(pod: usize) -> String {
    format!("3f2a9c10-5b7e-4d21-8c6f-{pod:012}")
}
