//! A volume on a host, mounted by the installed driver: a bucket of a real store, s3fs in the place
//! of ossfs, and containers that use it.

use crate::host::Host;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use support::{Container, ContainerOptions, Propagation, Store, volume_options};

const SECRET: &str = "sEcrEtOfTheImage";
/// A node configuration with s3fs in the place of ossfs.
pub const CONFIG: &str =
    "{\"ossfs\": \"s3fs\", \"mountTimeoutSeconds\": 60, \"abortHungAfterSeconds\": 1}\n";

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
        let store = Store::start();
        store.create_bucket("docker");
        store.add_key("key", SECRET);
        let target = format!("/var/lib/kubelet/pods/{uid}/volumes/alicloud~oss/data");
        std::fs::create_dir_all(host.path(&target)).unwrap();
        let more = json!({"otherOpts": "-o use_path_request_style"});
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

    /// The daemon that serves it, in the host's numbers.
    pub fn daemon(&self) -> String {
        let mut daemons = self
            .host
            .path("/proc")
            .read_dir()
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
                line.contains("passwd_file=/run/alicloud-oss/")
                    .then(|| entry.file_name())
            });
        let (daemon, more) = (daemons.next(), daemons.next());
        assert!(more.is_none(), "two daemons");
        daemon.expect("a daemon").into_string().unwrap()
    }

    /// Kills the daemon.
    pub fn kill_daemon(&self) {
        self.host.run(&["kill", "-KILL", &self.daemon()]);
    }

    /// A container of user 1000 with the volume in its home.
    pub fn container(&self, propagation: Propagation) -> Container {
        let home = format!("/home/{propagation:?}").to_lowercase();
        let path = format!("{home}/data");
        std::fs::create_dir_all(self.host.path(&path)).unwrap();
        self.host.run(&["chmod", "0700", &home]);
        self.host.run(&["chown", "1000", &home]);
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
