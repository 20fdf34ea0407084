//! The node: directories, store, configuration, and the checks that nothing is left over.

use crate::kubelet::{Answer, Kubelet, volume_options};
use crate::mount_table::{Mount, OWN_TABLE};
use crate::namespace;
use crate::process::Pidfd;
use crate::secrets;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use store::{PATH_STYLE, Store, mounter};
use tempfile::TempDir;

/// How long a process that is on its way out may take.
const ENDING: Duration = Duration::from_secs(10);

/// The bucket that every store here has.
const BUCKET: &str = "docker";

/// What a sandbox differs in from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Keys of the node configuration, over those of the sandbox.
    pub config: Map<String, Value>,
    /// Serve at this address, in a network namespace of the sandbox's own, under these host names.
    pub hosts: Option<(std::net::SocketAddr, Vec<String>)>,
}

impl Settings {
    /// Settings with these keys of the node configuration.
    pub fn config(config: Value) -> Self {
        match config {
            Value::Object(config) => Self {
                config,
                ..Self::default()
            },
            _ => panic!("a node configuration is an object"),
        }
    }
}

/// A node for one test. It lives in its own thread, whose mount namespace it owns.
pub struct Sandbox {
    directory: TempDir,
    pub store: Store,
    pub kubelet: Kubelet,
    /// A key pair that the store knows; no other test has it.
    pub key_id: String,
    pub secret: String,
    more_secrets: RefCell<Vec<String>>,
    answers: RefCell<Vec<String>>,
}

/// Runs `test` on a node whose driver is `driver`. Afterwards nothing may be left of the volumes:
/// no mount, no process, no file but the log; and no secret may be anywhere.
pub fn with_sandbox(driver: &str, test: impl FnOnce(&Sandbox) + Send) {
    with_settings(driver, &Settings::default(), test);
}

/// `with_sandbox`, on a node with `settings`.
pub fn with_settings(driver: &str, settings: &Settings, test: impl FnOnce(&Sandbox) + Send) {
    namespace::with_own_mounts(|| {
        let sandbox = Sandbox::new(Path::new(driver), settings);
        let result = catch_unwind(AssertUnwindSafe(|| {
            test(&sandbox);
            sandbox.assert_clean();
        }));
        if result.is_err() {
            sandbox.print_log();
        }
        sandbox.clean_up();
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

impl Sandbox {
    fn new(driver: &Path, settings: &Settings) -> Self {
        let store = match &settings.hosts {
            None => Store::start(),
            Some((address, names)) => {
                namespace::own_network().expect("a network of its own");
                hosts(names);
                Store::start_on(*address).expect("serve at the given address")
            }
        };
        let directory = tempfile::Builder::new()
            .prefix("oss-test-")
            .tempdir()
            .expect("a directory");
        let (key_id, secret) = (unique("LTAItest"), unique("sEcrEt+/"));
        store.create_bucket(BUCKET);
        store.add_key(&key_id, &secret);
        let mut sandbox = Self {
            kubelet: Kubelet {
                driver: driver.to_owned(),
                environment: Vec::new(),
            },
            directory,
            store,
            key_id,
            secret,
            more_secrets: RefCell::default(),
            answers: RefCell::default(),
        };
        // As on a node with systemd, what kubelet mounts is shared with other namespaces.
        let pods = sandbox.path("kubelet");
        std::fs::create_dir(&pods).expect("make the kubelet directory");
        namespace::bind(&pods, &pods).expect("bind the kubelet directory");
        namespace::propagate(&pods, MsFlags::MS_SHARED).expect("share the kubelet directory");
        sandbox.write_daemon();
        let file = sandbox.configure(&settings.config);
        sandbox.kubelet.environment = vec![("OSS_FLEXVOLUME_CONFIG".into(), file.into())];
        sandbox
    }

    /// Writes the node configuration with `more` keys over the usual ones, and returns its path.
    pub fn configure(&self, more: &Map<String, Value>) -> PathBuf {
        let mut config = json!({
            "ossfs": self.path("ossfs"),
            "stateDir": self.state_directory(),
            "logFile": self.log_file(),
            "logLevel": "debug",
            "temporaryDir": self.path("temporary"),
            "mountTimeoutSeconds": 20,
            "unmountTimeoutSeconds": 20,
        });
        if mounter().takes_options_of_ossfs() {
            // Wherever it is on this machine: a script of the sandbox could not reach it.
            config["ossfs"] = mounter().program.display().to_string().into();
        }
        for (key, value) in more {
            config[key] = value.clone();
        }
        if mounter().takes_options_of_ossfs() && !more.contains_key("ossfs") {
            let own = config["defaultOptions"].as_array().into_iter().flatten();
            let all: Vec<Value> = own.cloned().chain([PATH_STYLE.into()]).collect();
            config["defaultOptions"] = all.into();
        }
        let file = self.path("config.json");
        std::fs::write(&file, config.to_string()).expect("write the configuration");
        file
    }

    /// ossfs, or s3fs in its place.
    fn write_daemon(&self) {
        self.write_script("ossfs", &mounter().script());
    }

    /// Writes an executable shell script into the sandbox and returns its path.
    pub fn write_script(&self, name: &str, body: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}")).expect("write a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("make the script executable");
        path
    }

    /// A path in the sandbox's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn state_directory(&self) -> PathBuf {
        self.path("state")
    }

    pub fn log_file(&self) -> PathBuf {
        self.path("log/oss.log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Prints the last lines of the log, for whoever looks into a test that has failed.
    #[expect(clippy::print_stderr, reason = "the test's own report")]
    fn print_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(100)..].join("\n");
        eprintln!("the end of the driver's log:\n{last}");
    }

    /// TARGET of the volume `volume` of the Pod `pod`.
    pub fn target(&self, pod: &str, volume: &str) -> PathBuf {
        self.path("kubelet/pods")
            .join(pod)
            .join("volumes/alicloud~oss")
            .join(volume)
    }

    /// The options that kubelet hands over for a volume on the sandbox's store, with `more` over
    /// them.
    pub fn options(&self, more: Value) -> Value {
        let mut all = json!({"otherOpts": "-o max_stat_cache_size=0 -o allow_other"});
        for (key, value) in more.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        volume_options(BUCKET, &self.store.url(), &self.key_id, &self.secret, &all)
    }

    /// Mounts as kubelet does.
    #[track_caller]
    pub fn mount(&self, target: &Path, options: &Value) -> Answer {
        self.remember(self.kubelet.mount(target, options))
    }

    /// Unmounts as kubelet does.
    #[track_caller]
    pub fn unmount(&self, target: &Path) -> Answer {
        self.remember(self.kubelet.unmount(target))
    }

    /// Runs `oss heal` and returns what it printed, if all is well.
    ///
    /// # Errors
    /// What it printed, if not.
    pub fn heal(&self) -> Result<String, String> {
        let output = std::process::Command::new(&self.kubelet.driver)
            .arg("heal")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.kubelet.environment.iter().cloned())
            .output()
            .expect("run the driver");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(text)
        } else {
            Err(text)
        }
    }

    fn remember(&self, answer: Answer) -> Answer {
        self.answers.borrow_mut().push(answer.raw.clone());
        answer
    }

    /// A second secret that may be nowhere.
    pub fn watch_secret(&self, secret: &str) {
        self.more_secrets.borrow_mut().push(secret.to_owned());
    }

    /// Checks that no secret is where it must not be.
    #[track_caller]
    pub fn assert_no_secret(&self) {
        for secret in self.more_secrets.borrow().iter().chain([&self.secret]) {
            let directories = [self.state_directory(), self.path("log")];
            let directories = [directories[0].as_path(), directories[1].as_path()];
            let leaks = secrets::leaks(secret, &directories, std::process::id());
            assert!(leaks.is_empty(), "the secret is in {leaks:?}");
            for answer in self.answers.borrow().iter() {
                assert!(
                    !answer.contains(secret),
                    "the secret is in an answer: {answer}"
                );
            }
        }
    }

    /// The daemons that serve volumes of this node.
    pub fn daemons(&self) -> Vec<i32> {
        self.processes(&format!(
            "passwd_file={}/",
            self.state_directory().display()
        ))
    }

    /// The processes that have `text` in their arguments.
    pub fn processes(&self, text: &str) -> Vec<i32> {
        let mut pids: Vec<i32> = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.contains(text))
            })
            .collect();
        pids.sort_unstable();
        pids
    }

    /// The mounts below the sandbox's directory, but for the kubelet directory.
    pub fn mounts(&self) -> Vec<Mount> {
        let (own, kubelet) = (self.directory.path(), self.path("kubelet"));
        let mut mounts = Mount::table(OWN_TABLE);
        mounts.retain(|mount| Path::new(&mount.point).starts_with(own) && !mount.is_at(&kubelet));
        mounts
    }

    /// The mount at `path`, the uppermost one.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn mount_at(&self, path: &Path) -> Mount {
        let mut mounts = self.mounts();
        mounts.retain(|mount| mount.is_at(path));
        mounts.pop().expect("mounted")
    }

    /// How many mounts there are at `path`, one on the other or hidden.
    pub fn mounts_at(&self, path: &Path) -> usize {
        let mounts = self.mounts();
        mounts.iter().filter(|mount| mount.is_at(path)).count()
    }

    /// Mounts the bucket `docker` directly at `target`, as the old Go driver did.
    ///
    /// # Panics
    /// When the program does not.
    #[track_caller]
    pub fn mount_as_the_old_driver(&self, target: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::create_dir_all(target).expect("make TARGET");
        let passwd = self.path("old-passwd");
        std::fs::write(&passwd, format!("docker:{}:{}\n", self.key_id, self.secret))
            .expect("write the key");
        std::fs::set_permissions(&passwd, std::fs::Permissions::from_mode(0o600))
            .expect("close the key");
        let status = std::process::Command::new(&mounter().program)
            .arg("docker")
            .arg(target)
            .arg(format!("-ourl={}", self.store.url()))
            .arg(format!("-opasswd_file={}", passwd.display()))
            .arg(format!("-o{PATH_STYLE},allow_other"))
            .status()
            .expect("start the program");
        assert!(status.success());
        // Answered once the daemon's start is over.
        nix::sys::statvfs::statvfs(target).expect("the mount answers");
    }

    /// The ids of the volumes that the state directory has.
    pub fn volumes(&self) -> Vec<String> {
        std::fs::read_dir(self.state_directory().join("volumes"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    }

    /// The key files of the node.
    pub fn key_files(&self) -> Vec<PathBuf> {
        let mut files = secrets::files(&self.state_directory());
        // "live" has a copy of /etc/passwd.
        files.retain(|file| file.ends_with("passwd") && !file.ends_with("live/passwd"));
        files
    }

    /// Checks that nothing is left of any volume.
    #[track_caller]
    pub fn assert_clean(&self) {
        self.assert_no_secret();
        assert_eq!(self.mounts(), [], "mounts are left");
        let state = self.state_directory();
        let state = state.display().to_string();
        // One may be on its way out: after a call that was killed nobody has waited for it.
        for pid in self.processes(&state) {
            Pidfd::wait_for_end(pid, ENDING);
        }
        let processes = self.processes(&state).into_iter().map(|pid| {
            let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            format!("{pid} {}", words.unwrap_or_default().replace('\0', " "))
        });
        assert_eq!(
            processes.collect::<Vec<_>>(),
            [] as [&str; 0],
            "processes are left"
        );
        let mut files = secrets::files(&self.state_directory());
        files.retain(|file| file.file_name().is_none_or(|name| name != "boot"));
        assert_eq!(files, [] as [PathBuf; 0], "files are left");
        assert_eq!(self.volumes(), [] as [&str; 0], "directories are left");
    }

    /// Ends what a test that failed has left.
    fn clean_up(&self) {
        for pid in self.processes(&self.state_directory().display().to_string()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let mut points: Vec<String> = self.mounts().into_iter().map(|mount| mount.point).collect();
        points.push(self.path("kubelet").display().to_string());
        for point in points.iter().rev() {
            // Under another one that is unmounted already, or twice in the list.
            let _ = umount2(
                point.as_str(),
                MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW,
            );
        }
    }
}

/// A text that no other test, in this process or another, has.
fn unique(prefix: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:08x}{count:06x}", std::process::id())
}

/// Has `names` resolve to loopback, in this mount namespace.
fn hosts(names: &[String]) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(
        file.path(),
        format!("127.0.0.1 localhost {}\n", names.join(" ")),
    )
    .expect("write a hosts file");
    namespace::bind(file.path(), Path::new("/etc/hosts")).expect("bind the hosts file");
}
