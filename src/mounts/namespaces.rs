//! The other mount namespaces of the node: those of containers above all.

use crate::mounts::table::MountTable;
use std::collections::HashSet;
use std::path::PathBuf;

/// A mount namespace, by one of the processes in it.
pub(crate) struct Namespace {
    pub(crate) pid: i32,
    pub(crate) table: MountTable,
}

/// Every mount namespace but the calling process's own, that has a mount for which `wanted` holds.
/// One whose processes end meanwhile is left out.
pub(crate) fn others(wanted: impl Fn(&str) -> bool) -> Vec<Namespace> {
    let link =
        |pid: &str| -> Option<PathBuf> { std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok() };
    let mut seen: HashSet<PathBuf> = link("self").into_iter().collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // Kernel threads and ended processes have none.
        let Some(namespace) = link(&pid.to_string()) else {
            continue;
        };
        if !seen.insert(namespace) {
            continue;
        }
        let Ok(bytes) = std::fs::read(format!("/proc/{pid}/mountinfo")) else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        if wanted(&text) {
            let table = MountTable::parse(&text);
            found.push(Namespace { pid, table });
        }
    }
    found
}

/// The UID of the Pod that the process `pid` belongs to, as its cgroup's name has it.
pub(crate) fn pod_of(pid: i32) -> Option<String> {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    pod_in(&cgroup)
}

fn pod_in(cgroup: &str) -> Option<String> {
    cgroup.split("pod").skip(1).find_map(|rest| {
        let uid: String = rest
            .chars()
            .take_while(|c| c.is_ascii_hexdigit() || matches!(c, '-' | '_'))
            .map(|c| if c == '_' { '-' } else { c })
            .collect();
        (uid.len() == 36).then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::pod_in;

    #[test]
    fn tells_the_pod_from_the_cgroup() {
        let uid = "aa7a8264-2990-4fd5-b49f-294ddfe62b18";
        for cgroup in [
            format!("4:memory:/kubepods/burstable/pod{uid}/0123\n"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-x.scope\n",
                uid.replace('-', "_")
            ),
        ] {
            assert_eq!(pod_in(&cgroup).as_deref(), Some(uid), "{cgroup}");
        }
        assert_eq!(pod_in("0::/user.slice/podman-12.scope"), None);
        assert_eq!(pod_in("0::/"), None);
    }
}
