//! The process of a volume alone, without a call of kubelet's: `oss serve` with s3fs as its daemon.

use alicloud_oss::config::LogLevel;
use alicloud_oss::serve::client;
use alicloud_oss::serve::plan::{LogPlan, Plan};
use alicloud_oss::serve::protocol::{State, Status};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use support::{Sandbox, with_sandbox};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
/// The user that the daemons here run as.
const UID: u32 = 1_234_567;

/// A volume that a process serves.
struct Volume {
    directory: PathBuf,
    process: Child,
}

impl Volume {
    /// Serves the bucket of `sandbox` with `args` for `oss serve`, as `change` wants.
    fn start(sandbox: &Sandbox, args: &[&str], change: impl FnOnce(&mut Plan)) -> Self {
        let directory = sandbox.path("volume");
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder
            .create(&directory)
            .expect("make the volume's directory");
        builder
            .create(directory.join("staging"))
            .expect("make the staging directory");
        let passwd = directory.join("passwd");
        std::fs::write(
            &passwd,
            format!("docker:{}:{}\n", sandbox.key_id, sandbox.secret),
        )
        .expect("write the key file");
        std::fs::set_permissions(&passwd, Permissions::from_mode(0o600))
            .expect("restrict its mode");
        let arguments = [
            "docker".to_owned(),
            directory.join("staging").display().to_string(),
            "-f".to_owned(),
            format!("-ourl={}", sandbox.store.url()),
            format!("-opasswd_file={}", passwd.display()),
            "-ouse_path_request_style".to_owned(),
            "-omax_stat_cache_size=0".to_owned(),
        ];
        let program = which::which("s3fs").expect("s3fs is installed");
        let mut plan = Plan::new(program, arguments.into(), "s3fs".to_owned());
        plan.sandbox.uid = UID;
        plan.sandbox.key_file = Some(passwd);
        plan.log = Some(LogPlan {
            file: sandbox.log_file(),
            level: LogLevel::Info,
        });
        change(&mut plan);
        let plan = plan.render().expect("render the plan");
        std::fs::write(directory.join("serve.json"), plan).expect("write the plan");
        let process = Command::new(DRIVER)
            .arg("serve")
            .args(args)
            .arg(&directory)
            .stdin(Stdio::null())
            .spawn()
            .expect("start the driver");
        Self { directory, process }
    }

    /// As `start`, and waits until it is served.
    #[track_caller]
    fn served(sandbox: &Sandbox, args: &[&str]) -> Self {
        let volume = Self::start(sandbox, args, |_| {});
        assert_eq!(volume.wait().state, State::Served);
        volume
    }

    #[track_caller]
    fn wait(&self) -> Status {
        client::wait(&self.directory, deadline()).expect("an answer")
    }

    #[track_caller]
    fn status(&self) -> Status {
        client::status(&self.directory, deadline()).expect("an answer")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join("staging").join(name)
    }

    fn kill_daemon(&self) {
        let pid = self.status().daemon.expect("a daemon runs");
        signal(pid, Signal::SIGKILL);
    }

    /// Unmounts, waits for the process, and checks that it has left only what it was given.
    #[track_caller]
    fn unmount(self) {
        umount2(&self.directory.join("staging"), MntFlags::empty()).expect("unmount");
        self.ends_clean();
    }

    #[track_caller]
    fn ends_clean(mut self) {
        let status: ExitStatus = self.process.wait().expect("wait for the process");
        assert!(status.success(), "{status}");
        let entries = std::fs::read_dir(&self.directory).expect("list the directory");
        let mut left: Vec<_> = entries
            .map(|entry| entry.expect("list the directory").file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["passwd", "serve.json", "staging"]);
        std::fs::remove_dir_all(&self.directory).expect("remove the directory");
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).expect("send a signal");
}

fn content(sandbox: &Sandbox, key: &str) -> Option<Vec<u8>> {
    sandbox.store.object("docker", key)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("read a file")
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn serves_until_it_is_unmounted() {
    with_sandbox(DRIVER, |sandbox| {
        for args in [&[][..], &["--parent"]] {
            let volume = Volume::served(sandbox, args);
            let root = std::fs::metadata(volume.path("")).unwrap();
            assert_eq!((root.uid(), root.gid()), (0, 0));
            std::fs::write(volume.path("a"), "one").unwrap();
            assert_eq!(content(sandbox, "a").unwrap(), b"one");
            std::fs::create_dir(volume.path("d")).unwrap();
            std::fs::write(volume.path("d/b"), vec![7; 3 << 20]).unwrap();
            assert_eq!(std::fs::read(volume.path("d/b")).unwrap(), vec![7; 3 << 20]);
            let names = std::fs::read_dir(volume.path("")).unwrap();
            assert_eq!(names.count(), 2);
            std::fs::rename(volume.path("d/b"), volume.path("c")).unwrap();
            std::fs::remove_file(volume.path("c")).unwrap();
            std::fs::remove_dir(volume.path("d")).unwrap();
            std::fs::remove_file(volume.path("a")).unwrap();
            volume.unmount();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn says_what_the_daemon_said() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::start(sandbox, &[], |plan| {
            plan.arguments.push("-onosuchoption".to_owned());
        });
        let State::Failed { exit, output, .. } = volume.wait().state else {
            panic!("it is served");
        };
        assert_eq!(exit, Some(1));
        assert!(output.contains("nosuchoption"), "{output}");
        volume.unmount();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn says_why_it_cannot_begin() {
    with_sandbox(DRIVER, |sandbox| {
        for args in [&[][..], &["--parent"]] {
            let mut volume = Volume::start(sandbox, args, |plan| plan.version = 9);
            let error = client::wait(&volume.directory, deadline()).unwrap_err();
            let file = volume.directory.join("serve.json");
            assert_eq!(
                error.to_string(),
                format!(
                    "read {}: version 9 of the plan is not known: 1 to 1 are",
                    file.display()
                )
            );
            assert!(!volume.process.wait().unwrap().success());
            std::fs::remove_dir_all(&volume.directory).unwrap();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_killed_daemon_is_replaced_under_readers() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::served(sandbox, &[]);
        std::fs::write(volume.path("a"), "one").unwrap();
        let mut reader = File::open(volume.path("a")).unwrap();
        for deaths in 1..=3 {
            volume.kill_daemon();
            assert_eq!(read(&volume.path("a")), "one");
            assert_eq!(volume.wait().ends, deaths);
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        drop(reader);
        volume.unmount();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_writer_of_a_killed_daemon_gets_eio_until_it_closes() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::served(sandbox, &[]);
        std::fs::write(volume.path("a"), "old").unwrap();
        let mut writer = File::create(volume.path("a")).unwrap();
        writer.write_all(b"lost").unwrap();
        volume.kill_daemon();
        for _ in 0..2 {
            let error = writer.write_all(b"more").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
        }
        assert_eq!(
            writer.sync_all().unwrap_err().raw_os_error(),
            Some(nix::libc::EIO)
        );
        drop(writer);
        std::fs::write(volume.path("a"), "kept").unwrap();
        assert_eq!(content(sandbox, "a").unwrap(), b"kept");
        assert_eq!(volume.status().lost_writers, 0);
        volume.unmount();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_mount_outlives_its_process() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::served(sandbox, &["--parent"]);
        std::fs::write(volume.path("a"), "one").unwrap();
        let mut reader = File::open(volume.path("a")).unwrap();
        std::fs::write(volume.path("b"), "old").unwrap();
        let mut writer = File::create(volume.path("b")).unwrap();
        writer.write_all(b"lost").unwrap();
        let killed = volume.status().pid;
        signal(killed, Signal::SIGKILL);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        let error = writer.write_all(b"more").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
        drop((reader, writer));
        let status = volume.wait();
        assert!(status.restored);
        assert_ne!(status.pid, killed);
        std::fs::write(volume.path("b"), "kept").unwrap();
        assert_eq!(content(sandbox, "b").unwrap(), b"kept");
        volume.unmount();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_signal_ends_it_as_an_unmount_does() {
    with_sandbox(DRIVER, |sandbox| {
        for args in [&[][..], &["--parent"]] {
            let volume = Volume::served(sandbox, args);
            std::fs::write(volume.path("a"), "one").unwrap();
            signal(volume.process.id(), Signal::SIGTERM);
            volume.ends_clean();
        }
        let volume = Volume::served(sandbox, &[]);
        client::quit(&volume.directory, deadline()).unwrap();
        volume.ends_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn without_relay_the_daemon_has_the_connection() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::start(sandbox, &[], |plan| plan.relay = false);
        assert_eq!(volume.wait().state, State::Served);
        std::fs::write(volume.path("a"), "one").unwrap();
        assert_eq!(content(sandbox, "a").unwrap(), b"one");
        volume.unmount();
    });
}
