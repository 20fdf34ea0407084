//! A [`Node`] with the driver, a store, and a stand-in for kubelet.

use crate::container::{Container, ContainerOptions, Propagation};
use crate::kubelet::{Answer, volume_options};
use crate::node::{Config, Node};
use crate::process::wait_until;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use store::{PATH_STYLE, Store};

/// A unit whose process runs each script that it is told of, as kubelet runs its drivers: in its own
/// cgroup, with one pipe for what they print.
const KUBELET: &str = "\
[Service]
ExecStartPre=/bin/sh -c 'rm -f /run/kubelet.calls; mkfifo /run/kubelet.calls'
ExecStart=/bin/sh -c 'while true; do read -r call </run/kubelet.calls && sh \"$$call\" >\"$$call.answer\" 2>&1; done'
";
/// Where the driver is on the node.
const DRIVER: &str = "/opt/oss/oss";
const BUCKET: &str = "docker";
const KEY_ID: &str = "key";
const CONFIG: &str = "/etc/alicloud-oss/config.json";

/// A booted node with the driver, a store, and a stand-in for kubelet.
pub struct Cluster {
    pub node: Node,
    pub store: Store,
    secret: String,
}

impl Cluster {
    /// Boots a node with the driver that is at `driver`; `secret`, which no other test has, is that of
    /// the key pair.
    ///
    /// # Panics
    /// If the node does not boot.
    #[track_caller]
    pub fn boot(driver: &Path, secret: &str) -> Self {
        let directory = driver.parent().expect("an absolute path");
        let config = Config::new().bind_read_only(directory, "/opt/oss");
        let node = Node::boot(config).expect("boot a node");
        let store = Store::start();
        store.create_bucket(BUCKET);
        store.add_key(KEY_ID, secret);
        let cluster = Self {
            node,
            store,
            secret: secret.to_owned(),
        };
        cluster.configure(&json!({}));
        let kubelet = cluster.node.write_unit("kubelet.service", KUBELET);
        kubelet.expect("write the unit of kubelet");
        let started = cluster.node.systemctl(&["start", "kubelet"]);
        started.expect("start kubelet");
        cluster
    }

    /// Writes the node configuration with `more` keys over the usual ones.
    ///
    /// # Panics
    /// If it cannot.
    pub fn configure(&self, more: &Value) {
        let mut config = json!({"ossfs": "s3fs", "logLevel": "debug", "mountTimeoutSeconds": 60});
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let file = self.node.path(CONFIG);
        let directory = file.parent().expect("an absolute path");
        fs::create_dir_all(directory).expect("make its directory");
        fs::write(&file, config.to_string()).expect("write the configuration");
    }

    /// TARGET of the Pod `pod`.
    pub fn target(&self, pod: &str) -> PathBuf {
        format!("/var/lib/kubelet/pods/{pod}/volumes/alicloud~oss/v").into()
    }

    /// Calls the driver from within kubelet's cgroup.
    ///
    /// # Panics
    /// When kubelet could not make sense of the answer.
    #[track_caller]
    pub fn call(&self, args: &[&str]) -> Answer {
        let quoted: Vec<String> = args
            .iter()
            .map(|a| format!("'{}'", a.replace('\'', "'\\''")))
            .collect();
        let name = format!("/run/call-{:?}", std::thread::current().id()).replace(['(', ')'], "");
        let write = |name: &str, text: String| {
            fs::write(self.node.path(name), text).expect("write a script");
        };
        write(&name, format!("{DRIVER} {}\n", quoted.join(" ")));
        // A reader of the fifo says when the answer is complete.
        let answer = format!("{name}.done");
        self.node.run(&["mkfifo", &answer]).expect("make a fifo");
        let wrapper = format!("{name}.call");
        write(
            &wrapper,
            format!("sh {name} >{name}.out 2>&1; cat {name}.out >{answer}\n"),
        );
        let calls = self.node.path("/run/kubelet.calls");
        let mut calls = fs::OpenOptions::new().write(true).open(calls);
        let calls = calls.as_mut().expect("kubelet runs");
        writeln!(calls, "{wrapper}").expect("call kubelet");
        let answer = self.node.path(&answer);
        let raw = fs::read_to_string(&answer).expect("read the answer");
        fs::remove_file(&answer).expect("remove the fifo");
        Answer::parse(&raw)
    }

    /// The options of a volume with `more` over the usual ones, as kubelet passes them.
    #[must_use]
    pub fn options(&self, more: &Value) -> Value {
        let mut all = json!({"otherOpts": format!("-o {PATH_STYLE}")});
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        volume_options(BUCKET, &self.store.url(), KEY_ID, &self.secret, &all)
    }

    /// Mounts the bucket with `more` options, as kubelet does.
    ///
    /// # Panics
    /// As [`Self::call`].
    #[track_caller]
    pub fn mount(&self, target: &Path, more: &Value) -> Answer {
        fs::create_dir_all(self.node.path(target)).expect("make TARGET");
        let options = self.options(more);
        self.call(&["mount", text(target), &options.to_string()])
    }

    /// Unmounts as kubelet does.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn unmount(&self, target: &Path) {
        self.call(&["unmount", text(target)]).success();
        fs::remove_dir(self.node.path(target)).expect("TARGET is empty");
    }

    /// The units of volumes that systemd knows, whatever their state.
    ///
    /// # Panics
    /// If systemd does not answer.
    #[track_caller]
    pub fn units(&self) -> Vec<String> {
        let list = self
            .node
            .systemctl(&[
                "list-units",
                "--all",
                "--plain",
                "--no-legend",
                "alicloud-oss@*",
                "alicloud-oss*.scope",
            ])
            .expect("list the units");
        list.lines()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect()
    }

    /// The unit of the only volume.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[track_caller]
    pub fn unit(&self) -> String {
        let mut units = self.units();
        assert_eq!(units.len(), 1, "{units:?}");
        units.remove(0)
    }

    /// The main process of the only volume's unit, in the node's own numbers.
    ///
    /// # Panics
    /// As [`Self::unit`].
    #[track_caller]
    pub fn main_process(&self) -> String {
        let pid = self.node.property(&self.unit(), "MainPID");
        pid.expect("the number of the main process")
    }

    /// Kills processes at once, given in the node's own numbers.
    ///
    /// # Panics
    /// If one has ended.
    #[track_caller]
    pub fn kill(&self, pids: &[&str]) {
        let command = [&["kill", "-KILL"], pids].concat();
        self.node.run(&command).expect("kill the processes");
    }

    /// The directory of the only volume, as this process sees it.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[track_caller]
    pub fn volume(&self) -> PathBuf {
        let volumes = fs::read_dir(self.node.path("/run/alicloud-oss/volumes"));
        let volumes: Vec<_> = volumes.expect("list the volumes").flatten().collect();
        assert_eq!(volumes.len(), 1, "{volumes:?}");
        volumes[0].path()
    }

    /// A container on the node with `target` bound into it.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn container(
        &self,
        target: &Path,
        name: &str,
        kind: Propagation,
        read_only: bool,
    ) -> Container {
        let path = PathBuf::from(format!("/containers/{name}"));
        fs::create_dir_all(self.node.path(&path)).expect("make a directory");
        let (unshare, proc) = (self.node.command("unshare"), self.node.path("/proc"));
        let options = ContainerOptions {
            read_only,
            user: None,
        };
        Container::start_on(unshare, proc, target, &path, kind, options)
    }

    /// Checks that nothing is left of any volume, as soon as systemd has noticed, and that the secret is
    /// in no log.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn assert_clean(&self) {
        wait_until("no units of volumes", || self.units().is_empty());
        let run = |command: &[&str]| self.node.run(command).expect("run a command");
        let mounts = run(&["cat", "/proc/self/mountinfo"]);
        let mut mounts = mounts.lines();
        let left =
            mounts.find(|line| line.contains(" - fuse.s3fs") || line.contains(" - fuse.ossfs"));
        assert_eq!(left, None);
        let volumes = fs::read_dir(self.node.path("/run/alicloud-oss/volumes"));
        let left: Vec<_> = volumes.into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let journal = run(&["journalctl", "--no-pager", "-o", "cat"]);
        let log = fs::read_to_string(self.node.path("/var/log/alicloud/flexvolume_oss.log"));
        let log = log.unwrap_or_default();
        assert!(
            !log.contains("trying systemd's own programs"),
            "systemd did not answer: {log}"
        );
        for text in [journal, log] {
            assert!(!text.contains(&self.secret), "the secret is in a log");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is UTF-8")
}
