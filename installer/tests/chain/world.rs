//! A node with the real driver: the sandbox of the driver's own tests, the installer's stand-in for
//! kubelet, and an /etc and a /run that are the test's alone. The host's root is the machine's own.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{create_dir_all, read, read_link, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{
    Answer, Kubelet, Process, Sandbox, Stream, TestHost, copy_program, finish, installer,
    namespace::{mount_new, overlay},
    with_sandbox,
};

/// A node on which the driver is to be installed.
pub(crate) struct World<'a> {
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) node: TestHost,
    /// The file of the image.
    pub(crate) driver: PathBuf,
    /// kubelet, as far as it looks for drivers.
    pub(crate) watcher: Process,
    /// What was changed in /etc.
    etc: PathBuf,
}

/// The driver that is built with the tests, or the one that OSS_DRIVER names.
pub(crate) fn driver() -> PathBuf {
    let built = || {
        let own = std::env::current_exe().unwrap();
        own.parent().unwrap().join("../oss")
    };
    let path = std::env::var_os("OSS_DRIVER").map_or_else(built, PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: cargo test --workspace builds the driver, and OSS_DRIVER may name another",
        path.display()
    );
    path.canonicalize().unwrap()
}

/// Runs `test` on a node; afterwards nothing may be left of its volumes.
pub(crate) fn on_node(test: impl FnOnce(&mut World) + Send) {
    let driver = driver();
    with_sandbox(driver.to_str().unwrap(), |sandbox| {
        let mut node = TestHost::new();
        node.state = sandbox.state_directory();
        // This thread has a mount table of its own.
        let task = nix::unistd::gettid();
        let process = format!("/proc/{}/task/{task}", std::process::id());
        let link = node.path("proc/1");
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(process, link).unwrap();
        // Views that this thread may change; where the changes of /etc are is looked at.
        let memory = node.path("etc");
        create_dir_all(&memory).unwrap();
        let etc = overlay(Path::new("/etc"), Path::new("/etc"), &memory).unwrap();
        mount_new("tmpfs", Path::new("/run"), "").unwrap();
        create_dir_all("/etc/alicloud-oss").unwrap();
        std::fs::copy(sandbox.path("config.json"), "/etc/alicloud-oss/config.json").unwrap();
        write("/etc/updatedb.conf", "PRUNEFS=\"NFS proc\"\n").unwrap();
        let directory = format!("--volume-plugin-dir={}", node.plugins.display());
        let mut world = World {
            sandbox,
            watcher: node.start_kubelet(&[&directory]),
            node,
            driver: driver.clone(),
            etc,
        };
        test(&mut world);
        // What a driver that stays has recorded.
        let _ = std::fs::remove_file(sandbox.state_directory().join("init.json"));
    });
}

impl World<'_> {
    /// The driver under another build id.
    pub(crate) fn another_build(&self) -> PathBuf {
        another_build(&self.driver, &self.node)
    }

    /// What kubelet did with the driver until now.
    pub(crate) fn seen(&mut self) -> Vec<String> {
        self.node.seen_by(&self.watcher)
    }

    /// The installer as a DaemonSet or a package runs it.
    pub(crate) fn installer(&self, subcommand: &str, driver: &Path) -> Command {
        let mut command = installer(subcommand);
        command
            .args(["--host-root", "/", "--driver"])
            .arg(driver)
            .arg("--proc")
            .arg(self.node.path("proc"))
            .arg("--state-dir")
            .arg(&self.node.state);
        command
    }

    /// Runs the installer until it has looked at everything once, and returns what it said.
    #[track_caller]
    pub(crate) fn install(&self, driver: &Path) -> String {
        let run = Process::start(&mut self.installer("run", driver), Stream::Stderr);
        let said = run.end_at("/ossfs 1.");
        assert!(!said.contains("ERROR"), "{said}");
        said
    }

    /// Whether the installer's probe finds the node ready, and what it says.
    pub(crate) fn check(&self, driver: &Path) -> (bool, String) {
        finish(&mut self.installer("check", driver))
    }

    #[track_caller]
    pub(crate) fn uninstall(&self) {
        let (removed, said) = finish(&mut self.installer("uninstall", &self.driver));
        assert!(removed, "{said}");
    }

    /// Who calls the driver at its place.
    pub(crate) fn kubelet(&self) -> Kubelet {
        Kubelet {
            driver: self.node.driver(),
            environment: Vec::new(),
        }
    }

    #[track_caller]
    pub(crate) fn mount(&self, target: &Path, more: Value) -> Answer {
        self.kubelet().mount(target, &self.sandbox.options(more))
    }

    #[track_caller]
    pub(crate) fn unmount(&self, target: &Path) {
        self.kubelet().unmount(target).success();
    }

    /// Mounts volumes of `count` Pods; the last four share a daemon. The object `data` is in each.
    pub(crate) fn mount_many(&self, count: usize, data: &[u8]) -> Vec<PathBuf> {
        self.sandbox.store.put("docker", "data", data);
        let targets = (0..count).map(|i| self.sandbox.target(&format!("pod{i}"), "v"));
        let targets: Vec<PathBuf> = targets.collect();
        for (i, target) in targets.iter().enumerate() {
            let share = (i + 4 >= count).to_string();
            self.mount(target, json!({"shareMount": share})).success();
        }
        targets
    }

    /// Every file that the driver or the installer may have to do with, with its mode and content.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let kubelets = self.sandbox.path("kubelet");
        let log = self.sandbox.path("log");
        let mut found = BTreeMap::new();
        let mut directories = vec![
            self.sandbox.path(""),
            self.node.plugins.clone(),
            self.etc.clone(),
            "/run".into(),
        ];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                if path == kubelets || path == log {
                    continue;
                }
                let meta = path.symlink_metadata().unwrap();
                let mut content = Vec::new();
                if meta.is_dir() {
                    directories.push(path.clone());
                } else if meta.is_file() {
                    content = read(&path).unwrap();
                } else if meta.is_symlink() {
                    let target = read_link(&path).unwrap();
                    content = target.into_os_string().into_encoded_bytes();
                }
                found.insert(path, (meta.permissions().mode(), content));
            }
        }
        found
    }

    /// Checks that the host is as it was when `before` was looked at.
    #[track_caller]
    pub(crate) fn assert_as_before(&self, before: &BTreeMap<PathBuf, (u32, Vec<u8>)>) {
        let now = self.files();
        let names =
            |one: &BTreeMap<PathBuf, (u32, Vec<u8>)>| one.keys().cloned().collect::<Vec<PathBuf>>();
        assert_eq!(names(&now), names(before));
        assert!(now == *before, "a mode or a content has changed");
        assert_eq!(self.sandbox.daemons(), [0; 0]);
    }
}

/// The driver at `path` under another build id, as a file of `node`.
pub(crate) fn another_build(driver: &Path, node: &TestHost) -> PathBuf {
    let version = version(driver);
    let id = version.split(['(', ')']).nth(1).expect("a build id");
    let (id, other) = (id.as_bytes(), b"0123456789abcdef");
    let mut bytes = read(driver).unwrap();
    let is_id = |at: &usize| bytes[*at..].starts_with(id);
    let places: Vec<usize> = (0..bytes.len()).filter(is_id).collect();
    for at in places {
        bytes[at..at + id.len()].copy_from_slice(other);
    }
    let (parts, path) = (node.path("parts"), node.path("another-oss"));
    write(&parts, bytes).unwrap();
    copy_program(&parts, &path);
    assert_ne!(self::version(&path), version);
    path
}

/// What the driver at `path` says that it is.
pub(crate) fn version(path: &Path) -> String {
    let output = Command::new(path).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().to_owned()
}

/// How kubelet's stand-in tells that it has loaded the driver at `path`.
pub(crate) fn loaded(path: &Path) -> String {
    format!("init alicloud~oss ok {}", version(path))
}
