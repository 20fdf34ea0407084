//! The process of a volume alone, without a call of kubelet's: `oss serve` with s3fs as its daemon.

use alicloud_oss::config::LogLevel;
use alicloud_oss::serve::client;
use alicloud_oss::serve::plan::{LogPlan, Plan};
use alicloud_oss::serve::protocol::{State, Status};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use support::{Fault, PATIENCE, Sandbox, kernel_sends_again, with_sandbox};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");
/// The user that the daemons here run as.
const UID: u32 = 1_234_567;

/// A volume that a process serves.
struct Volume {
    directory: PathBuf,
    process: Option<Child>,
}

impl Volume {
    /// A volume of the bucket of `sandbox`, planned as `change` wants, that nobody serves yet.
    fn prepare(sandbox: &Sandbox, change: impl FnOnce(&mut Plan)) -> Self {
        // Its control group has this name, too.
        let directory = sandbox.path(&format!("volume-{}", sandbox.key_id));
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
        let start = r#"{"program":"/","arguments":[],"readOnly":false,"under":"nothing"}"#;
        std::fs::write(directory.join("volume.json"), start).expect("write the start");
        for name in ["serve.json", "volume.json"] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(directory.join(name), mode).expect("restrict a file");
        }
        Self {
            directory,
            process: None,
        }
    }

    /// As `prepare`, and serves it with `args` for `oss serve`.
    fn start(sandbox: &Sandbox, args: &[&str], change: impl FnOnce(&mut Plan)) -> Self {
        let mut volume = Self::prepare(sandbox, change);
        let mut command = Command::new(DRIVER);
        command.arg("serve").args(args).arg(&volume.directory);
        let process = command.stdin(Stdio::null()).spawn();
        volume.process = Some(process.expect("start the driver"));
        volume
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

    /// Waits for its process.
    fn end(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("a process was started");
        process.wait().expect("wait for the process")
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }

    /// Kills its process.
    fn kill(&mut self) {
        signal(self.pid(), Signal::SIGKILL);
        self.end();
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
        let status = self.end();
        assert!(status.success(), "{status}");
        let entries = std::fs::read_dir(&self.directory).expect("list the directory");
        let mut left: Vec<_> = entries
            .map(|entry| entry.expect("list the directory").file_name())
            .collect();
        left.sort();
        assert_eq!(
            left,
            ["daemon", "passwd", "serve.json", "staging", "volume.json"]
        );
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
            let error = error.to_string();
            let expected = format!("read {}: build ", file.display());
            assert!(error.starts_with(&expected), "{error}");
            assert!(error.contains("wrote it in format 9"), "{error}");
            assert!(!volume.end().success());
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
fn a_name_that_was_never_uploaded_is_free_after_a_death() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::served(sandbox, &[]);
        let mut writer = File::create(volume.path("a")).unwrap();
        writer.write_all(b"lost").unwrap();
        volume.kill_daemon();
        let error = writer.sync_all().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
        drop(writer);
        std::fs::write(volume.path("a"), "kept").unwrap();
        assert_eq!(content(sandbox, "a").unwrap(), b"kept");
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
            signal(volume.pid(), Signal::SIGTERM);
            volume.ends_clean();
        }
        let volume = Volume::served(sandbox, &[]);
        client::quit(&volume.directory, deadline()).unwrap();
        volume.ends_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_plan_that_is_read_again_holds_for_the_next_daemon() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::served(sandbox, &[]);
        let file = volume.directory.join("serve.json");
        let before = std::fs::read_to_string(&file).unwrap();
        let replace = |from: &str, to: &str| {
            assert!(before.contains(from), "{before}");
            std::fs::write(&file, before.replace(from, to)).unwrap();
        };
        let arguments = || {
            let pid = volume.status().daemon.expect("a daemon runs");
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap()
        };
        // One that makes no sense changes nothing.
        replace("\"version\": ", "\"version\": 9");
        client::reload(&volume.directory, deadline()).unwrap();
        let option = "-omax_stat_cache_size=7";
        replace("-omax_stat_cache_size=0", option);
        let first = volume.status().daemon;
        volume.kill_daemon();
        std::fs::write(volume.path("a"), "one").unwrap();
        assert!(!arguments().contains(option), "nobody has asked for it");
        client::reload(&volume.directory, deadline()).unwrap();
        volume.kill_daemon();
        std::fs::write(volume.path("b"), "two").unwrap();
        assert!(arguments().contains(option));
        assert_ne!(volume.status().daemon, first);
        assert_eq!(content(sandbox, "b").unwrap(), b"two");
        volume.unmount();
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

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_daemon_that_hangs_is_replaced() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::start(sandbox, &[], |plan| plan.hung_after_seconds = 1);
        let hung = volume.wait().daemon.unwrap();
        std::fs::write(volume.path("a"), "one").unwrap();
        signal(hung, Signal::SIGSTOP);
        assert_eq!(read(&volume.path("a")), "one");
        let status = volume.wait();
        assert_eq!((status.killed, status.ends), (1, 1));
        assert_ne!(status.daemon, Some(hung));
        volume.unmount();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn any_end_of_a_daemon_is_survived() {
    with_sandbox(DRIVER, |sandbox| {
        let volume = Volume::served(sandbox, &[]);
        std::fs::write(volume.path("a"), "one").unwrap();
        let mut reader = File::open(volume.path("a")).unwrap();
        for last in [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGABRT] {
            signal(volume.wait().daemon.unwrap(), last);
            assert_eq!(read(&volume.path("a")), "one", "{last}");
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        drop(reader);
        volume.unmount();
    });
}

/// What systemd does for a unit with a descriptor store.
struct Systemd {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Systemd {
    fn new(sandbox: &Sandbox) -> Self {
        let path = sandbox.path("notify");
        let socket = UnixDatagram::bind(&path).expect("listen");
        Self { socket, path }
    }

    /// The descriptor that is stored next, and its name.
    fn stored(&self) -> (String, Option<OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 256];
        let length = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut text)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .expect("a message")
        .bytes;
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        (String::from_utf8_lossy(&text[..length]).into_owned(), fd)
    }

    /// Starts the unit's process with what is stored.
    fn start(&self, directory: &Path, stored: Option<OwnedFd>) -> Child {
        let mut command = Command::new("/bin/sh");
        let script = match stored {
            Some(_) => {
                "exec 3<&0 </dev/null; \
                 LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=fuse exec \"$0\" serve \"$1\""
            }
            None => "exec \"$0\" serve \"$1\"",
        };
        command
            .args(["-c", script, DRIVER])
            .arg(directory)
            .env("NOTIFY_SOCKET", &self.path)
            .stdin(stored.map_or_else(Stdio::null, Stdio::from));
        command.spawn().expect("start the driver")
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn systemd_keeps_the_mount_for_the_next_process() {
    with_sandbox(DRIVER, |sandbox| {
        let systemd = Systemd::new(sandbox);
        let mut volume = Volume::prepare(sandbox, |_| {});
        volume.process = Some(systemd.start(&volume.directory, None));
        assert!(systemd.stored().0.starts_with("FDSTOREREMOVE=1"));
        let (text, fd) = systemd.stored();
        assert_eq!(text, "FDSTORE=1\nFDNAME=fuse");
        assert_eq!(systemd.stored().0, "READY=1");
        volume.wait();
        std::fs::write(volume.path("a"), "one").unwrap();
        // Not this process: a child of it would close the file before it can become the next process
        // of the volume, and wait for that.
        let mut reader = Command::new("/bin/sh")
            .args(["-c", "exec 3<\"$0\"; echo; read go; cat <&3"])
            .arg(volume.path("a"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = reader.stdout.take().unwrap();
        output.read_exact(&mut [0]).unwrap();
        volume.kill();
        volume.process = Some(systemd.start(&volume.directory, fd));
        reader.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        assert!(reader.wait().unwrap().success());
        assert!(volume.wait().restored);
        volume.unmount();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_request_that_was_not_recorded_is_asked_for_again_or_ends_the_mount() {
    with_sandbox(DRIVER, |sandbox| {
        let systemd = Systemd::new(sandbox);
        let mut volume = Volume::prepare(sandbox, |_| {});
        sandbox.store.put("docker", "a", "one");
        volume.process = Some(systemd.start(&volume.directory, None));
        systemd.stored();
        let (_, fd) = systemd.stored();
        volume.wait();
        sandbox.store.inject("docker", Fault::Hang);
        let mut reader = Command::new("/bin/cat")
            .arg(volume.path("a"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(
            sandbox
                .store
                .wait_for_request(PATIENCE, |request| { request.key == "a" })
        );
        volume.kill();
        // As if it had been killed before it could record the request.
        File::create(volume.directory.join("inflight")).unwrap();
        volume.process = Some(systemd.start(&volume.directory, fd));
        if kernel_sends_again() {
            sandbox.store.clear_faults();
            assert!(reader.wait().unwrap().success());
            return volume.unmount();
        }
        assert!(!reader.wait().unwrap().success());
        assert_eq!(volume.end().code(), Some(1));
        sandbox.store.clear_faults();
        // The next one mounts anew.
        volume.process = Some(systemd.start(&volume.directory, None));
        assert!(!volume.wait().restored);
        assert_eq!(read(&volume.path("a")), "one");
        volume.unmount();
    });
}
