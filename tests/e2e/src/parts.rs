//! The parts of Kubernetes as units of the node's systemd, and their configurations.

use crate::image::BUSYBOX;
use crate::kubectl::KUBECONFIG;
use crate::network::ADDRESS;
use serde_json::json;

/// The node's name.
pub(crate) const NODE: &str = "node";

/// Where kubelet looks for FlexVolume drivers.
pub(crate) const PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// Everybody's way to the API: one user who may do everything.
const TOKEN: &str = "e2e-administrator";

/// containerd, as `/etc/containerd/config.toml`.
pub(crate) fn containerd() -> String {
    // A machine that is a container itself may not lower its score for the OOM killer.
    format!(
        "version = 2\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         sandbox_image = \"{BUSYBOX}\"\n\
         restrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n\
         SystemdCgroup = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         bin_dir = \"/usr/lib/cni\"\n\
         conf_dir = \"/etc/cni/net.d\"\n"
    )
}

/// Files of the node, each with its path.
pub(crate) fn files() -> Vec<(&'static str, String)> {
    let network = json!({
        "cniVersion": "0.4.0", "name": "e2e",
        "plugins": [{"type": "ptp", "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.89.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
        }}],
    });
    let access = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
        "clusters": [{"name": "e2e", "cluster": {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": true}}],
        "users": [{"name": "e2e", "user": {"token": TOKEN}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
    });
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "systemd",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "1%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "maxPods": 200,
        "oomScoreAdj": 0,
        "resolvConf": "/etc/resolv.conf",
        "volumePluginDir": PLUGINS,
    });
    vec![
        ("/etc/cni/net.d/10-e2e.conflist", network.to_string()),
        (
            "/etc/kubernetes/tokens",
            format!("{TOKEN},admin,admin,system:masters\n"),
        ),
        (KUBECONFIG, access.to_string()),
        ("/etc/kubernetes/kubelet.json", kubelet.to_string()),
    ]
}

/// The units, in the order in which they start. With `systemd` a restart of kubelet ends all that is in its
/// control group, which is the default; without, only kubelet ends, as under other supervisors.
pub(crate) fn units(systemd: bool) -> [(&'static str, String); 4] {
    let kill = if systemd { "control-group" } else { "process" };
    [
        (
            "kube-apiserver.service",
            unit("Type=notify\nTimeoutStopSec=5\n", &apiserver()),
        ),
        (
            "kube-controller-manager.service",
            unit(
                "",
                &[
                    "kube-controller-manager",
                    "--leader-elect=false",
                    &format!("--kubeconfig={KUBECONFIG}"),
                ],
            ),
        ),
        (
            "kube-scheduler.service",
            unit(
                "",
                &[
                    "kube-scheduler",
                    "--leader-elect=false",
                    &format!("--kubeconfig={KUBECONFIG}"),
                ],
            ),
        ),
        (
            "kubelet.service",
            unit(
                &format!(
                    "Type=notify\nRestart=always\nRestartSec=1\nTimeoutStartSec=120\nKillMode={kill}\n"
                ),
                &[
                    "kubelet",
                    &format!("--hostname-override={NODE}"),
                    &format!("--node-ip={ADDRESS}"),
                    &format!("--kubeconfig={KUBECONFIG}"),
                    "--config=/etc/kubernetes/kubelet.json",
                ],
            ),
        ),
    ]
}

fn apiserver() -> Vec<&'static str> {
    vec![
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        "--advertise-address=10.88.0.1",
        "--secure-port=6443",
        "--cert-dir=/etc/kubernetes/pki",
        "--token-auth-file=/etc/kubernetes/tokens",
        "--authorization-mode=AlwaysAllow",
        "--disable-admission-plugins=ServiceAccount",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file=/etc/kubernetes/pki/account.key",
        "--service-account-signing-key-file=/etc/kubernetes/pki/account.key",
        // Debian's etcd has none of the progress notices that these need.
        "--feature-gates=WatchList=false",
        "--allow-privileged=true",
    ]
}

fn unit(settings: &str, command: &[&str]) -> String {
    format!(
        "[Service]\n{settings}ExecStart=/opt/kubernetes/{}\n",
        command.join(" ")
    )
}
