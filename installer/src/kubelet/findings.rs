//! What of a running kubelet is to be known besides its plugin directory: the way to its root directory,
//! and another node configuration.

use crate::finding::Finding;
use crate::host::Host;
use crate::kubelet::process::Kubelet;
use alicloud_oss::config::{DEFAULT_FILE, FILE_VARIABLE};
use alicloud_oss::mounts::links;

/// What there is to say of `kubelets`, whose paths are those of `host` unless they run in containers.
pub(crate) fn of(host: &Host, kubelets: &[Kubelet]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for kubelet in kubelets {
        let seen = if kubelet.on_host { host } else { &kubelet.root };
        findings.extend(root_directory(seen, kubelet));
        findings.extend(configuration(kubelet));
    }
    findings
}

/// The driver refuses a TARGET behind a link that somebody else than root can change.
fn root_directory(host: &Host, kubelet: &Kubelet) -> Option<Finding> {
    let (name, pid) = (kubelet.name(), kubelet.pid);
    // That its flags cannot be read is told with the plugin directory.
    let root = kubelet.root_directory().ok()?;
    match links::resolve_in(host.root(), &root) {
        Ok(real) if real == root => None,
        Ok(real) => Some(Finding::note(format!(
            "the root directory {root:?} of {name} (pid {pid}) is a symbolic link to {real:?}: volumes \
             are mounted there"
        ))),
        Err(e) => Some(Finding::blocks_mounting(format!(
            "the root directory {root:?} of {name} (pid {pid}): {e:#}"
        ))),
    }
}

fn configuration(kubelet: &Kubelet) -> Option<Finding> {
    let named = kubelet
        .variable(FILE_VARIABLE)
        .filter(|file| !file.is_empty())?;
    (named != DEFAULT_FILE).then(|| {
        Finding::warning(format!(
            "the environment of {} (pid {}) has {FILE_VARIABLE}={named:?}: the driver reads that file, \
             and the installer checks and writes {DEFAULT_FILE}: leave the variable out",
            kubelet.name(),
            kubelet.pid
        ))
    })
}
