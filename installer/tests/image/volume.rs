//! A volume on a host, mounted by the installed driver: a bucket of a real store, s3fs in the place
//! of ossfs, and containers that use it.

use crate::host::Host;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::{Container, ContainerOptions, Propagation, Store, volume_options};

const SECRET: &str = "sEcrEtOfTheImage";
/// A node configuration with s3fs in the place of ossfs.
pub const CONFIG: &str = "{\"ossfs\": \"s3fs\", \"mountTimeoutSeconds\": 60, \"allowedOptions\": [\"use_cache=/var/cache/oss\"]}\n";

/// What only the command lines of a volume's processes have.
const OSSFS: &str = "passwd_file=/run/alicloud-oss/";
const PARENT: &str = "serve\0--parent\0/run/alicloud-oss/";
const CHILD: &str = "serve\0--child\0/run/alicloud-oss/";

pub struct Volume<'a> {
    host: &'a Host,
    /// The driver's path on the host.
    driver: String,
    pub target: String,
    _store: Store,
}

impl<'a> Volume<'a> {
    /// Mounts a new bucket as the volume `data` of the Pod `uid` by the driver in `plugins`, and
    /// writes `file` with `content` into it.
    #[track_caller]
    pub fn mount(host: &'a Host, plugins: &str, uid: &str) -> Self {
        Self::mount_with(host, plugins, uid, "-o use_path_request_style")
    }

    /// The same with a cache on the host's disk, which the node configuration has to allow.
    #[track_caller]
    pub fn mount_with_cache(host: &'a Host, plugins: &str, uid: &str) -> Self {
        let options = "-o use_path_request_style -o use_cache=/var/cache/oss";
        Self::mount_with(host, plugins, uid, options)
    }

    #[track_caller]
    fn mount_with(host: &'a Host, plugins: &str, uid: &str, other_opts: &str) -> Self {
        let store = Store::start();
        store.create_bucket("docker");
        store.add_key("key", SECRET);
        let target = format!("/var/lib/kubelet/pods/{uid}/volumes/alicloud~oss/data");
        std::fs::create_dir_all(host.path(&target)).unwrap();
        let more = json!({"otherOpts": other_opts});
        let options = volume_options("docker", &store.url(), "key", SECRET, &more);
        let driver = format!("{plugins}/alicloud~oss/oss");
        let volume = Self {
            host,
            driver,
            target,
            _store: store,
        };
        volume.call(&["mount", &volume.target, &options.to_string()]);
        std::fs::write(volume.file(), "content").unwrap();
        volume
    }

    #[track_caller]
    fn call(&self, args: &[&str]) {
        let mut all = vec![self.driver.as_str()];
        all.extend(args);
        let answer: Value = serde_json::from_str(&self.host.run(&all)).unwrap();
        assert_eq!(answer["status"], "Success", "{answer}");
    }

    /// Unmounts it, and removes the target as kubelet does.
    #[track_caller]
    pub fn unmount(&self) {
        self.call(&["unmount", &self.target]);
        std::fs::remove_dir(self.host.path(&self.target)).unwrap();
    }

    /// The file in the bucket, as this process sees it.
    pub fn file(&self) -> PathBuf {
        self.host.path(&self.target).join("file")
    }

    /// Its ossfs, in the host's numbers.
    #[track_caller]
    pub fn ossfs(&self) -> String {
        self.only(OSSFS)
    }

    /// Its process that keeps the connection, on a host without systemd.
    #[track_caller]
    pub fn parent(&self) -> String {
        self.only(PARENT)
    }

    /// Its process that serves it, on a host without systemd.
    #[track_caller]
    pub fn child(&self) -> String {
        self.only(CHILD)
    }

    /// The only process with `text` in its command line, once there is one.
    #[track_caller]
    fn only(&self, text: &str) -> String {
        let mut found = Vec::new();
        self.host.wait_until(text, || {
            found = self.with(text);
            !found.is_empty()
        });
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        found.remove(0)
    }

    /// Those of its processes that run.
    pub fn processes(&self) -> Vec<String> {
        [PARENT, CHILD, OSSFS].map(|text| self.with(text)).concat()
    }

    fn with(&self, text: &str) -> Vec<String> {
        let processes = self.host.path("/proc").read_dir().unwrap().flatten();
        processes
            .filter(|entry| {
                std::fs::read_to_string(entry.path().join("cmdline"))
                    .is_ok_and(|line| line.contains(text))
            })
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// Ends the process by SIGKILL, and waits until it has ended.
    #[track_caller]
    pub fn kill(&self, pid: &str) {
        self.host.run(&["kill", "-KILL", pid]);
        self.wait_for_end(pid);
    }

    #[track_caller]
    fn wait_for_end(&self, pid: &str) {
        let stat = self.host.path(format!("/proc/{pid}/stat"));
        self.host.wait_until("a process ends", || {
            // Who has started it may not have waited for it yet.
            std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
        });
    }

    /// Kills all its processes that there are, on a host without systemd; the mount is dead then.
    #[track_caller]
    pub fn kill_all(&self) {
        let all = [PARENT, CHILD, OSSFS].map(|text| self.with(text));
        for parent in &all[0] {
            self.kill(parent);
        }
        // They end with it.
        for pid in all[1..].iter().flatten() {
            self.wait_for_end(pid);
        }
    }

    /// A container of user 1000 with the volume.
    #[track_caller]
    pub fn container(&self, propagation: Propagation) -> Container {
        let path = format!("/mnt/{propagation:?}").to_lowercase();
        std::fs::create_dir_all(self.host.path(&path)).unwrap();
        let options = ContainerOptions {
            read_only: false,
            user: Some(1000),
        };
        Container::start_on(
            self.host.command("unshare"),
            self.host.path("/proc"),
            Path::new(&self.target),
            Path::new(&path),
            propagation,
            options,
        )
    }
}
