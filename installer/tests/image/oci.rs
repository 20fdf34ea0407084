//! A Pod's spec as kubelet and a container runtime carry it out: the runtime configuration
//! (`config.json`) of each of its containers.

use crate::manifest::{PodSpec, bytes};
use crate::seccomp;
use serde_json::{Value, json};

/// What containerd and CRI-O leave to a container that drops nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
/// Of a Pod with the priority class system-node-critical (`pkg/kubelet/qos/policy.go`).
const CRITICAL_OOM_SCORE: i32 = -997;
/// Where kubelet puts the volumes of the Pod.
const VOLUMES: &str = "/var/lib/kubelet/pods/installer/volumes";
/// What is hidden of /proc and /sys (`pkg/securitycontext/util.go`).
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The configuration of the Pod's container `container`, in the cgroup `cgroup`.
pub fn config(pod: &PodSpec, container: &Value, cgroup: &str) -> Value {
    let spec = &pod.0;
    let (of_pod, of_container) = (&spec["securityContext"], &container["securityContext"]);
    let setting = |name: &str| match &of_container[name] {
        Value::Null => of_pod[name].clone(),
        value => value.clone(),
    };
    assert_eq!(setting("seccompProfile"), json!({"type": "RuntimeDefault"}));
    assert!(setting("privileged").is_null());
    let capabilities = capabilities(&of_container["capabilities"]);
    let mut args = container["command"].as_array().unwrap().clone();
    args.extend(container["args"].as_array().into_iter().flatten().cloned());
    let is_critical = spec["priorityClassName"] == "system-node-critical";
    let mut config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": setting("runAsUser"), "gid": setting("runAsGroup")},
            "args": args,
            "env": environment(container),
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "noNewPrivileges": of_container["allowPrivilegeEscalation"] == false,
        },
        "root": {"path": "rootfs", "readonly": of_container["readOnlyRootFilesystem"] == true},
        "hostname": "installer",
        "mounts": mounts(spec, container),
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": {"limit": bytes(container["resources"]["limits"]["memory"].as_str().unwrap())},
            },
            "namespaces": namespaces(spec),
            "seccomp": seccomp::runtime_default(&capabilities),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    });
    if is_critical && may_lower_oom_scores() {
        config["process"]["oomScoreAdj"] = json!(CRITICAL_OOM_SCORE);
    }
    config
}

/// Whether this process has CAP_SYS_RESOURCE (capabilities(7)): a container that the tests run in
/// may not.
fn may_lower_oom_scores() -> bool {
    const SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"))
        .unwrap();
    u64::from_str_radix(own, 16).unwrap() >> SYS_RESOURCE & 1 == 1
}

fn capabilities(of_container: &Value) -> Vec<String> {
    let names = |name: &str| -> Vec<String> {
        let list = of_container[name].as_array().into_iter().flatten();
        list.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let (add, drop) = (names("add"), names("drop"));
    let keeps = |name: &&str| !drop.iter().any(|drop| drop == "ALL" || drop == name);
    let kept = DEFAULT_CAPABILITIES.into_iter().filter(keeps);
    let mut all: Vec<String> = kept.map(str::to_owned).chain(add).collect();
    all.sort();
    all.dedup();
    all.iter().map(|name| format!("CAP_{name}")).collect()
}

fn environment(container: &Value) -> Vec<String> {
    let own = container["env"].as_array().into_iter().flatten();
    let own = own.map(|env| {
        format!(
            "{}={}",
            env["name"].as_str().unwrap(),
            env["value"].as_str().unwrap()
        )
    });
    // The runtime's own, and what every container has of the API server.
    let common = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=installer",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
    ];
    common.iter().map(ToString::to_string).chain(own).collect()
}

/// A Pod's own namespaces: those of the host only where the spec says so. Control groups have one
/// where they are a single hierarchy.
fn namespaces(spec: &Value) -> Vec<Value> {
    let mut own = vec!["mount", "uts"];
    for (name, host) in [
        ("pid", "hostPID"),
        ("ipc", "hostIPC"),
        ("network", "hostNetwork"),
    ] {
        if spec[host] != true {
            own.push(name);
        }
    }
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        own.push("cgroup");
    }
    own.iter().map(|name| json!({"type": name})).collect()
}

fn mounts(spec: &Value, container: &Value) -> Vec<Value> {
    let system = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let mut mounts = vec![
        system("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        system(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        system(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        system(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        ),
        system("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        system(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ];
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let propagation = match mount["mountPropagation"].as_str() {
            None | Some("None") => "rprivate",
            Some("HostToContainer") => "rslave",
            Some("Bidirectional") => "rshared",
            Some(other) => panic!("{other}"),
        };
        let mut volumes = spec["volumes"].as_array().into_iter().flatten();
        let volume = volumes.find(|volume| volume["name"] == mount["name"]);
        let volume = volume.unwrap_or_else(|| panic!("no volume {mount}"));
        let mode = if mount["readOnly"] == true {
            "ro"
        } else {
            "rw"
        };
        mounts.push(json!({
            "destination": mount["mountPath"],
            "type": "bind",
            "source": source(volume),
            "options": ["rbind", propagation, mode],
        }));
    }
    mounts
}

/// Where on the host what the volume `volume` shows is.
pub fn source(volume: &Value) -> String {
    let name = || volume["name"].as_str().unwrap();
    if let Some(path) = volume["hostPath"]["path"].as_str() {
        path.to_owned()
    } else if volume["configMap"].is_object() {
        config_map(name())
    } else {
        assert!(volume["emptyDir"].is_object(), "{volume}");
        format!("{VOLUMES}/kubernetes.io~empty-dir/{}", name())
    }
}

/// Where kubelet puts the files of the ConfigMap that the volume `name` shows.
pub fn config_map(name: &str) -> String {
    format!("{VOLUMES}/kubernetes.io~configmap/{name}")
}

#[test]
fn the_capabilities_are_what_is_left_and_added() {
    let none = capabilities(&json!({"drop": ["ALL"]}));
    assert_eq!(none, [] as [&str; 0]);
    let added = capabilities(&json!({"drop": ["ALL"], "add": ["SYS_PTRACE"]}));
    assert_eq!(added, ["CAP_SYS_PTRACE"]);
    assert_eq!(capabilities(&json!(null)).len(), DEFAULT_CAPABILITIES.len());
}
