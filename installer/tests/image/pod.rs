//! A Pod as kubelet starts it: its hostPaths are made, its init containers are run by runc inside the
//! host to their end, then the one that stays; their log is read, the readiness probe run in the latter.

use crate::dist::Image;
use crate::host::Host;
use crate::manifest::PodSpec;
use crate::oci;
use serde_json::Value;
use std::cell::RefCell;
use std::fs::{DirBuilder, create_dir_all, read_to_string, write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{PATIENCE, Process, Stream};

/// How the names of Pods begin; after it the test process's id.
pub const PREFIX: &str = "oss-test-pod-";

/// A running Pod; it is removed when it is dropped.
pub struct Pod<'a> {
    host: &'a Host,
    id: String,
    probe: Vec<String>,
    /// What the init containers logged, as far as nobody has read it.
    first_log: RefCell<Vec<String>>,
    /// runc, which stays in the foreground as long as the container runs.
    runc: Process,
    /// When the first container was asked for.
    pub started: Instant,
}

impl<'a> Pod<'a> {
    pub fn start(host: &'a Host, spec: &PodSpec, image: &Image) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}{}-{count}", std::process::id());
        let volumes = spec.0["volumes"].as_array().into_iter().flatten();
        for volume in volumes {
            let place = host.path(oci::source(volume));
            match volume["hostPath"]["type"].as_str() {
                // As kubelet does (`pkg/volume/hostpath`).
                Some("DirectoryOrCreate") => {
                    let mut builder = DirBuilder::new();
                    builder.recursive(true).mode(0o755).create(&place).unwrap();
                }
                None if volume["configMap"]["optional"] == true
                    || volume["emptyDir"].is_object() =>
                {
                    create_dir_all(&place).unwrap()
                }
                None | Some("Directory") => assert!(place.is_dir(), "{}", place.display()),
                other => panic!("{other:?}"),
            }
        }
        let bundle = format!("/run/pods/{id}");
        let root = host.path(&bundle).join("rootfs");
        create_dir_all(&root).unwrap();
        image.unpack(&root);
        let start = |container: &Value| {
            let config = oci::config(spec, container, &format!("/{id}"));
            write(host.path(&bundle).join("config.json"), config.to_string()).unwrap();
            let mut runc = runc(host);
            runc.args(["run", "--bundle", &bundle, &id]);
            Process::start(&mut runc, Stream::Stderr)
        };
        let probe = spec.container()["readinessProbe"]["exec"]["command"]
            .as_array()
            .unwrap();
        let started = Instant::now();
        let mut first_log = Vec::new();
        for container in spec.init_containers() {
            let (status, log) = start(container).end();
            // kubelet would run it again, and never the next.
            assert!(status.success(), "{log:#?}");
            first_log.extend(log);
        }
        let runc = start(spec.container());
        let probe = probe
            .iter()
            .map(|arg| arg.as_str().unwrap().to_owned())
            .collect();
        Self {
            host,
            id,
            probe,
            first_log: RefCell::new(first_log),
            runc,
            started,
        }
    }

    /// The lines of the Pod's log, in the order of its containers, up to the first one with `text` in it.
    #[track_caller]
    pub fn read_until(&self, text: &str) -> Vec<String> {
        let mut lines = self.first_log.take();
        if let Some(at) = lines.iter().position(|line| line.contains(text)) {
            self.first_log.replace(lines.split_off(at + 1));
        } else {
            lines.extend(self.runc.read_until(text));
        }
        lines
    }

    /// Runs the readiness probe, and returns whether the Pod is ready, and what the probe said.
    pub fn probe(&self) -> (bool, String) {
        let Output {
            status,
            stderr,
            stdout,
        } = runc(self.host)
            .args(["exec", &self.id])
            .args(&self.probe)
            .output()
            .unwrap();
        let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        (status.success(), said)
    }

    /// Probes until the Pod is ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        loop {
            let (ready, said) = self.probe();
            if ready {
                return;
            }
            assert!(self.started.elapsed() < PATIENCE, "not ready: {said}");
        }
    }

    /// Ends the Pod as kubelet does, with SIGTERM, and returns its exit status with the rest of
    /// its log.
    #[track_caller]
    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        let killed = runc(self.host)
            .args(["kill", &self.id, "TERM"])
            .output()
            .unwrap();
        assert!(
            killed.status.success(),
            "{}",
            String::from_utf8_lossy(&killed.stderr)
        );
        self.finish()
    }

    /// Waits for the container's own end; its exit status and the rest of its log.
    pub fn wait(mut self) -> (Option<i32>, Vec<String>) {
        self.finish()
    }

    fn finish(&mut self) -> (Option<i32>, Vec<String>) {
        let (status, log) = self.runc.end();
        (status.code(), log)
    }

    /// The container's first process, in the host's numbers.
    pub fn pid(&self) -> u32 {
        let output = runc(self.host).args(["state", &self.id]).output().unwrap();
        let state: Value = serde_json::from_slice(&output.stdout).unwrap();
        u32::try_from(state["pid"].as_u64().unwrap()).unwrap()
    }

    /// The text of `/proc/PID/NAME` of the container's first process.
    pub fn proc(&self, name: &str) -> String {
        read_to_string(self.host.path(format!("/proc/{}/{name}", self.pid()))).unwrap()
    }

    /// What the Pod's cgroup says in the file `v1` of `controller`'s hierarchy, or, where all
    /// controllers have one, in `v2`.
    fn cgroup(&self, controller: &str, v1: &str, v2: &str) -> String {
        let cgroups = self.proc("cgroup");
        let own = |wanted: &str| {
            let mut lines = cgroups
                .lines()
                .filter_map(|line| line.split_once(':')?.1.split_once(':'));
            let line = lines.find(|(names, _)| names.split(',').any(|name| name == wanted));
            line.map(|(names, path)| {
                Path::new("/sys/fs/cgroup")
                    .join(names)
                    .join(path.trim_start_matches('/'))
            })
        };
        let file = match own(controller) {
            Some(directory) => directory.join(v1),
            None => own("").unwrap().join(v2),
        };
        read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    /// The processor time of all that ran in the Pod.
    pub fn cpu_time(&self) -> Duration {
        let text = self.cgroup("cpuacct", "cpuacct.usage", "cpu.stat");
        match text.trim().parse() {
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
            Err(_) => {
                let mut lines = text
                    .lines()
                    .filter_map(|line| line.strip_prefix("usage_usec "));
                Duration::from_micros(lines.next().unwrap().parse().unwrap())
            }
        }
    }

    /// The most memory that the Pod has had, everything that ran in it included, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.cgroup("memory", "memory.max_usage_in_bytes", "memory.peak")
            .trim()
            .parse()
            .unwrap()
    }

    /// Checks that the manifest's limit holds and ended nothing in the Pod.
    #[track_caller]
    pub fn assert_within_memory(&self, spec: &PodSpec) {
        let limit = self.cgroup("memory", "memory.limit_in_bytes", "memory.max");
        let wanted = spec.container()["resources"]["limits"]["memory"]
            .as_str()
            .unwrap();
        assert_eq!(limit.trim(), crate::manifest::bytes(wanted).to_string());
        let events = self.cgroup("memory", "memory.oom_control", "memory.events");
        assert!(events.lines().any(|line| line == "oom_kill 0"), "{events}");
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = runc(self.host)
            .args(["delete", "--force", &self.id])
            .output();
    }
}

fn runc(host: &Host) -> Command {
    let mut command = host.command("/usr/sbin/runc");
    command.args(["--root", "/run/runc"]);
    command
}
