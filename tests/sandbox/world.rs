//! A mount namespace with a FUSE mount in it that waits for its daemon, and a store.

use alicloud_oss::sandbox::{End, LiveFiles, Mode, Sandboxed, Spec, spawn};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use std::cell::RefCell;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use support::{Store, mounter};
use tempfile::TempDir;

/// A uid for one daemon: limits are for all processes of a uid.
fn uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_879_000_000 + std::process::id() % 10_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
    pub(crate) uid: u32,
    pub(crate) live_files: RefCell<LiveFiles>,
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
        let live_files = RefCell::new(LiveFiles::new(&directory.path().join("live")).unwrap());
        let world = Self {
            directory,
            store,
            uid: uid(),
            live_files,
            fuse: RefCell::default(),
        };
        for name in ["staging", "root", "temporary"] {
            std::fs::create_dir(world.path(name)).unwrap();
        }
        chown(world.path("temporary"), Some(world.uid), Some(world.uid)).unwrap();
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
            // By a name: the resolver has what it needs.
            format!("url=http://localhost:{}", self.store.address().port()),
            format!("passwd_file={}", self.path("key").display()),
            "use_path_request_style".to_owned(),
            "retries=1".to_owned(),
        ] {
            arguments.extend(["-o".to_owned(), option]);
        }
        Spec {
            program: Path::new("/usr/bin").join(&mounter().program),
            arguments,
            mount_point: self.staging(),
            uid: self.uid,
            root: self.path("root"),
            temporary: self.path("temporary"),
            key_file: Some(self.path("key")),
            reachable: Vec::new(),
            environment: Default::default(),
            live_files: self.path("live"),
            groups: Vec::new(),
            mode,
            helper: env!("CARGO_BIN_EXE_oss").into(),
        }
    }

    /// The same with a daemon that has been taken over and is to do `deed`.
    pub(crate) fn evil(&self, deed: &str, words: &[(&str, String)]) -> Spec {
        let mut arguments: Vec<String> = ["--exact", crate::evil::NAME, "--ignored", "--nocapture"]
            .map(str::to_owned)
            .into();
        arguments.push(format!("do={deed}"));
        arguments.extend(words.iter().map(|(key, value)| format!("{key}={value}")));
        Spec {
            program: std::env::current_exe().unwrap(),
            arguments,
            ..self.spec(Mode::Full)
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

/// s3fs 1.90 now and then aborts while it takes itself down.
pub(crate) fn ended_by_itself(end: End) -> bool {
    [End::Exited(0), End::Killed(Signal::SIGABRT as i32)].contains(&end)
}
