//! The stand-in for kubelet on a host.

use crate::host::Host;
use std::fs::{Permissions, create_dir_all, read, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use support::{Process, Stream, example};

/// The stand-in's path on a host.
const PROGRAM: &str = "/usr/bin/kubelet";

/// Puts the stand-in for kubelet into its place on `host`.
pub fn install(host: &Host) {
    host.write(PROGRAM, read(example("kubelet-stand-in")).unwrap());
    set_permissions(host.path(PROGRAM), Permissions::from_mode(0o755)).unwrap();
}

/// A running stand-in for kubelet.
pub struct Kubelet<'a> {
    host: &'a Host,
    pub process: Process,
    plugins: String,
}

impl<'a> Kubelet<'a> {
    /// Starts the stand-in on `host`, where it watches `plugins`.
    pub fn start(host: &'a Host, plugins: &str) -> Self {
        install(host);
        create_dir_all(host.path(plugins)).unwrap();
        let mut command = host.command(PROGRAM);
        command
            .arg(format!("--volume-plugin-dir={plugins}"))
            .args(["--watch", plugins]);
        Self {
            host,
            process: Process::start(&mut command, Stream::Stdout),
            plugins: plugins.to_owned(),
        }
    }

    /// What kubelet did until now, once all that happened before this call has reached it.
    pub fn seen(&mut self) -> Vec<String> {
        self.process.seen_in(&self.host.path(&self.plugins))
    }
}
