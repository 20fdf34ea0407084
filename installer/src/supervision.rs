//! Who starts the volumes' processes on this node, and starts them again: by the driver's own rule, for
//! what the driver meets where kubelet runs it.

use crate::find::Found;
use crate::host::Host;
use alicloud_oss::config::{Config, Launcher};
use alicloud_oss::ossfs::launch::{self, Supervision, Surroundings};
use alicloud_oss::sys::command::PATH;
use anyhow::Result;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What supervises the volumes of a driver with the node configuration `config`; an error if the driver
/// will refuse each mount.
pub(crate) fn of(found: &Found, config: &Config) -> Result<Supervision> {
    launch::supervision(config.launcher, surroundings(&found.host, found.on_host))
}

/// Whether a driver with `launcher` has systemd run the volumes.
pub(crate) fn is_systemd(found: &Found, launcher: Launcher) -> bool {
    launch::supervision(launcher, surroundings(&found.host, found.on_host))
        .is_ok_and(|supervision| supervision != Supervision::Direct)
}

/// What the driver meets on `host`; `on_host` is false where kubelet has a mount namespace of its own,
/// whose /run may well be the host's.
fn surroundings(host: &Host, on_host: bool) -> Surroundings {
    let has = |program: &str| {
        PATH.split(':').any(|directory| {
            host.metadata(&Path::new(directory).join(program))
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    };
    Surroundings {
        systemd: on_host && host.runs_systemd(),
        systemctl: has("systemctl"),
        systemd_run: has("systemd-run"),
    }
}
