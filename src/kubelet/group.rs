//! kubelet's control group: what kubelet starts is in it, or below it, until somebody moves it.

/// The programs that kubelet runs as or in: by itself, in k3s and RKE2, MicroK8s, k0s, MicroShift, and
/// the image that had all of Kubernetes in one program (proc_pid_comm(5)).
pub const PROGRAMS: [&str; 9] = [
    "kubelet",
    "k3s",
    "k3s-server",
    "k3s-agent",
    "rke2",
    "kubelite",
    "k0s",
    "microshift",
    "hyperkube",
];
/// kubelet's usual unit.
const UNIT: &str = "kubelet.service";

/// The group that systemd keeps a process in, from the text of its `/proc/PID/cgroup` (cgroups(7)):
/// that of the named hierarchy, or of the only one.
pub(crate) fn of_systemd(text: &str) -> Option<&str> {
    let group = |prefix| {
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.strip_prefix(prefix)
        })
    };
    group("name=systemd:").or_else(|| group(":"))
}

/// Whether `group` is kubelet's unit, or one of `kubelets`, the groups of the processes that are a
/// kubelet, or one below.
pub(crate) fn is_of_kubelet(group: &str, kubelets: &[String]) -> bool {
    let is_in = |kubelet: &str| {
        group
            .strip_prefix(kubelet)
            // Below the root are all groups, and so those of containers.
            .is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && kubelet != "/"))
    };
    group.split('/').any(|part| part == UNIT) || kubelets.iter().any(|kubelet| is_in(kubelet))
}

#[cfg(test)]
mod tests {
    use super::{is_of_kubelet, of_systemd};

    #[test]
    fn the_group_is_that_of_systemd() {
        for (text, group) in [
            (
                "0::/system.slice/k3s.service\n",
                Some("/system.slice/k3s.service"),
            ),
            (
                "4:memory:/a\n1:name=systemd:/system.slice/kubelet.service\n0::/b\n",
                Some("/system.slice/kubelet.service"),
            ),
            ("4:memory:/a\n", None),
            ("", None),
        ] {
            assert_eq!(of_systemd(text), group, "{text}");
        }
    }

    #[test]
    fn only_kubelets_group_and_those_below_are_kubelets() {
        let kubelets = ["/system.slice/k3s.service".to_owned(), "/".to_owned()];
        for (group, expected) in [
            ("/system.slice/kubelet.service", true),
            ("/system.slice/kubelet.service/run-r1.scope", true),
            ("/system.slice/k3s.service", true),
            ("/system.slice/k3s.service/a.scope", true),
            ("/system.slice/k3s.service2", false),
            ("/", true),
            ("/system.slice/ossfs.service", false),
            ("/user.slice/user-0.slice/session-1.scope", false),
            (
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ab.scope",
                false,
            ),
        ] {
            assert_eq!(is_of_kubelet(group, &kubelets), expected, "{group}");
        }
        assert!(!is_of_kubelet("/", &[]));
    }
}
