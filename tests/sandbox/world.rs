//! A mount namespace with a FUSE mount in it that waits for its daemon, and a store.

#![allow(clippy::unwrap_used, reason = "a test's own files")]

use alicloud_oss::sandbox::{Mode, Sandboxed, Spec, spawn};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::cell::RefCell;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use support::Store;
use tempfile::TempDir;

/// The uid of the daemons here; no other test's.
pub(crate) const UID: u32 = 1_879_000_001;

/// s3fs, or what the environment variable `OSSFS` names: the real ossfs takes the same options.
fn daemon() -> PathBuf {
    std::env::var_os("OSSFS").map_or_else(|| "/usr/bin/s3fs".into(), PathBuf::from)
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
    fuse: RefCell<Option<OwnedFd>>,
}

/// Runs `test` in a thread with a mount namespace of its own, and takes everything away afterwards.
pub(crate) fn with_world(test: impl FnOnce(&World) + Send) {
    std::thread::scope(|scope| {
        let result = scope
            .spawn(|| {
                let world = World::new();
                test(&world);
                world.unmount();
            })
            .join();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

impl World {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own: root is needed");
        let none = None::<&Path>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .expect("private mounts");
        let directory = tempfile::Builder::new()
            .prefix("oss-test-")
            .tempdir()
            .expect("a directory");
        let store = Store::start();
        store.create_bucket("docker");
        store.add_key("LTAIsandbox", "sEcrEt");
        let world = Self {
            directory,
            store,
            fuse: RefCell::default(),
        };
        for name in ["staging", "root", "temporary", "live"] {
            std::fs::create_dir(world.path(name)).unwrap();
        }
        chown(world.path("temporary"), Some(UID), Some(UID)).unwrap();
        std::fs::write(world.path("key"), "docker:LTAIsandbox:sEcrEt\n").unwrap();
        std::fs::set_permissions(world.path("key"), Permissions::from_mode(0o600)).unwrap();
        world.mount();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.path("staging")
    }

    fn mount(&self) {
        let fuse = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("open /dev/fuse");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            fuse.as_raw_fd()
        );
        mount(
            Some("ossfs"),
            &self.staging(),
            Some("fuse.ossfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .expect("mount");
        self.fuse.replace(Some(fuse.into()));
    }

    /// How s3fs is to serve the mount.
    pub(crate) fn spec(&self, mode: Mode) -> Spec {
        let mut arguments = vec!["docker".to_owned(), self.staging().display().to_string()];
        arguments.push("-f".to_owned());
        for option in [
            format!("url={}", self.store.url()),
            format!("passwd_file={}", self.path("key").display()),
            "use_path_request_style".to_owned(),
            "retries=1".to_owned(),
        ] {
            arguments.extend(["-o".to_owned(), option]);
        }
        Spec {
            program: daemon(),
            arguments,
            mount_point: self.staging(),
            uid: UID,
            root: self.path("root"),
            temporary: self.path("temporary"),
            key_file: Some(self.path("key")),
            reachable: Vec::new(),
            live_files: self.path("live"),
            groups: Vec::new(),
            mode,
            helper: env!("CARGO_BIN_EXE_oss").into(),
        }
    }

    /// Starts the daemon with the mount's descriptor; its output goes to the file `output`.
    pub(crate) fn start(&self, spec: &Spec) -> anyhow::Result<Sandboxed> {
        let fuse = self.fuse.take().expect("one daemon a mount");
        let output = File::create(self.path("output")).unwrap();
        spawn(spec, fuse, output.into())
    }

    pub(crate) fn output(&self) -> String {
        let mut text = String::new();
        File::open(self.path("output"))
            .and_then(|mut file| file.read_to_string(&mut text))
            .unwrap();
        text
    }

    /// statfs is answered by the daemon itself, once it serves.
    pub(crate) fn wait_until_served(&self) {
        nix::sys::statvfs::statvfs(&self.staging())
            .unwrap_or_else(|e| panic!("statfs: {e}: {}", self.output()));
    }

    pub(crate) fn unmount(&self) {
        self.fuse.take();
        // Twice is once too many, and no harm.
        let _ = umount2(&self.staging(), MntFlags::MNT_DETACH);
    }
}
