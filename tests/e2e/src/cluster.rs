//! The cluster: a node with a systemd of its own, all of Kubernetes on it, a store, and the driver.

use crate::args::Args;
use crate::image;
use crate::kubectl;
use crate::network;
use crate::parts::{self, NODE, PLUGINS};
use crate::programs::{self, PROGRAMS};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use support::Store;
use support::node::{Config, Node};

/// Beyond what every node has.
const PACKAGES: [&str; 7] = [
    "containerd",
    "containernetworking-plugins",
    "etcd-server",
    "iproute2",
    "libcurl4",
    "openssl",
    "runc",
];

/// The bucket that all checks use.
pub(crate) const BUCKET: &str = "docker";
pub(crate) const KEY_ID: &str = "LTAIe2e";
pub(crate) const SECRET: &str = "sEcrEtOfThe/e2e+bucket";

/// The overlays of the DaemonSet.
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../installer/deploy");

/// A cluster that runs.
pub(crate) struct Cluster {
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) driver: PathBuf,
    pub(crate) installer: PathBuf,
    /// What may be nowhere in clear: the secrets of all key pairs that a check has made up.
    pub(crate) secrets: RefCell<Vec<String>>,
    /// What lasts as long as the node.
    _directory: tempfile::TempDir,
}

impl Cluster {
    /// Boots the node and starts everything; the driver is installed, and no Pod runs.
    pub(crate) fn boot(args: &Args) -> Result<Self> {
        let kubernetes = match &args.kubernetes {
            Some(directory) => directory.clone(),
            None => programs::build()?,
        };
        for program in PROGRAMS {
            ensure!(
                kubernetes.join(program).exists(),
                "no {program} in {}",
                kubernetes.display()
            );
        }
        let directory = tempfile::tempdir().context("make a directory")?;
        fs::write(
            directory.path().join("containerd.toml"),
            parts::containerd(),
        )?;
        image::busybox(&directory.path().join("busybox.tar"))?;
        let config = Config::new()
            .hostname(NODE)
            .containers()
            .own_network()
            .packages(&PACKAGES)
            .memory("/var/lib/containerd")
            .bind_read_only(kubernetes.canonicalize()?, "/opt/kubernetes")
            .bind_read_only(Path::new(DEPLOY), "/opt/deploy")
            .bind(directory.path(), "/opt/e2e")
            .bind_read_only(
                directory.path().join("containerd.toml"),
                "/etc/containerd/config.toml",
            );
        let node = Node::boot(config).context("boot the node")?;
        if let Some(ossfs) = &args.ossfs {
            fs::copy(ossfs, node.path("/usr/local/bin/ossfs"))
                .with_context(|| format!("copy {}", ossfs.display()))?;
        }
        network::set_up(&node).context("set up the network of the node")?;
        let store = network::store(&node)?;
        store.create_bucket(BUCKET);
        store.add_key(KEY_ID, SECRET);
        let cluster = Self {
            node,
            store,
            driver: args.driver.clone(),
            installer: args.installer.clone(),
            secrets: RefCell::new(vec![SECRET.to_owned()]),
            _directory: directory,
        };
        cluster.configure(args)?;
        cluster.install_driver()?;
        cluster.import("busybox.tar")?;
        cluster.start(!args.no_systemd)?;
        Ok(cluster)
    }

    /// The node configuration of the driver.
    fn configure(&self, args: &Args) -> Result<()> {
        let mut config = json!({
            "logLevel": "debug",
            "mountTimeoutSeconds": 60,
            // The store has an address, not a host name for each bucket.
            "defaultOptions": ["use_path_request_style"],
        });
        if args.ossfs.is_none() {
            config["ossfs"] = json!("/usr/bin/s3fs");
        }
        if args.no_systemd {
            config["launcher"] = json!("direct");
        }
        self.write("/etc/alicloud-oss/config.json", &config.to_string())
    }

    /// Writes a file of the node, and its directory if needed.
    pub(crate) fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.node.path(inside);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("make the directory of {inside}"))?;
        }
        fs::write(path, text).with_context(|| format!("write {inside}"))
    }

    /// Puts the driver where kubelet finds it, as README.md says.
    pub(crate) fn install_driver(&self) -> Result<()> {
        let directory = self.node.path(PLUGINS).join(".alicloud~oss");
        fs::create_dir_all(&directory).context("make the driver's directory")?;
        fs::copy(&self.driver, directory.join("oss"))
            .with_context(|| format!("copy {}", self.driver.display()))?;
        fs::rename(&directory, self.node.path(PLUGINS).join("alicloud~oss"))
            .context("rename the driver's directory")
    }

    /// Puts the driver back, after a check that has installed and removed it in another way.
    pub(crate) fn reinstall_driver(&self) -> Result<()> {
        let directory = self.node.path(PLUGINS).join("alicloud~oss");
        if directory.exists() {
            fs::remove_dir_all(&directory).context("remove the driver's directory")?;
        }
        self.install_driver()?;
        self.node.systemctl(&["restart", "kubelet"]).map(drop)
    }

    /// Loads a container image that lies in the directory shared with the node.
    pub(crate) fn import(&self, archive: &str) -> Result<()> {
        let path = format!("/opt/e2e/{archive}");
        self.node
            .run(&[
                "ctr",
                "--namespace=k8s.io",
                "images",
                "import",
                "--no-unpack",
                &path,
            ])
            .map(drop)
    }

    /// Where a file of the shared directory lies on this machine.
    pub(crate) fn shared(&self, name: &str) -> PathBuf {
        self._directory.path().join(name)
    }

    fn start(&self, systemd: bool) -> Result<()> {
        for (path, text) in parts::files() {
            self.write(path, &text)?;
        }
        self.node.run(&["mkdir", "-p", "/etc/kubernetes/pki"])?;
        self.node.run(&[
            "openssl",
            "genrsa",
            "-out",
            "/etc/kubernetes/pki/account.key",
            "2048",
        ])?;
        // kubelet reads the kernel's messages, which belong to the machine.
        self.node.run(&["ln", "-sf", "/dev/null", "/dev/kmsg"])?;
        self.node.systemctl(&["start", "etcd"])?;
        for (name, text) in parts::units(systemd) {
            self.node.write_unit(name, &text)?;
            self.node
                .systemctl(&["start", name])
                .with_context(|| self.tail(name))?;
        }
        let ready = self.kubectl(&[
            "wait",
            "--for=create",
            &format!("node/{NODE}"),
            "--timeout=60s",
        ]);
        ready
            .and_then(|_| {
                self.kubectl(&[
                    "wait",
                    "--for=condition=Ready",
                    &format!("node/{NODE}"),
                    "--timeout=90s",
                ])
            })
            .with_context(|| self.tail("kubelet.service"))?;
        Ok(())
    }

    /// The end of a unit's journal, for a message.
    pub(crate) fn tail(&self, unit: &str) -> String {
        let journal = self.node.journal(unit).unwrap_or_default();
        let lines: Vec<&str> = journal.lines().collect();
        format!(
            "{unit}:\n{}\n",
            lines[lines.len().saturating_sub(15)..].join("\n")
        )
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        kubectl::run(&self.node, arguments)
    }

    pub(crate) fn get(&self, arguments: &[&str]) -> Result<Value> {
        kubectl::get(&self.node, arguments)
    }

    /// Makes objects, or changes them.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        kubectl::run_with(
            &self.node,
            &["apply", "--validate=false", "-f", "-"],
            &list.to_string(),
        )
        .map(drop)
    }

    /// Another secret that may be nowhere.
    pub(crate) fn watch_secret(&self, secret: &str) {
        self.secrets.borrow_mut().push(secret.to_owned());
    }

    /// Leaves everything running until a line is read, and says how to get in.
    pub(crate) fn hold(&self) -> Result<()> {
        println!(
            "the cluster stays until a line is read: nsenter -t {} -a env \
             PATH=/opt/kubernetes:/usr/sbin:/usr/bin:/sbin:/bin KUBECONFIG={} bash",
            self.node.pid1(),
            kubectl::KUBECONFIG
        );
        std::io::stdin().read_line(&mut String::new())?;
        Ok(())
    }
}
