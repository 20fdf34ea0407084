//! The mount outlives its ossfs: paths and readers go on, whoever had a file open for writing gets EIO
//! until he closes it, nothing is lost in silence, and nothing has to be done in any container.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{
    Container, EndOnDrop, Fault, PATIENCE, Propagation, Sandbox, Settings, kernel_sends_again,
    mounter, with_sandbox, with_settings,
};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// How many times ossfs is killed: OSS_TEST_KILLS, or a number that a test run bears.
fn kills() -> u32 {
    std::env::var("OSS_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(15)
}

/// How long an ossfs serves between two kills: the successor of one that has served for less is held
/// back, later and later.
const SERVICE: Duration = Duration::from_millis(300);

fn directory(node: &Sandbox, name: &str) -> PathBuf {
    let path = node.path(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn bind(source: &Path, target: &Path) {
    let none = None::<&str>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none).unwrap();
}

/// Binds a part of `target` where kubelet does for a container's subPath.
fn sub_path(node: &Sandbox, target: &Path, name: &str) -> PathBuf {
    let parent = directory(node, "kubelet/pods/u1/volume-subpaths/oss1/main");
    let path = parent.join(name.replace('/', "-"));
    match target.join(name).is_dir() {
        true => fs::create_dir_all(&path).unwrap(),
        false => fs::write(&path, "").unwrap(),
    }
    bind(&target.join(name), &path);
    path
}

/// A container of each kind on one volume, and the file in it that has "content".
fn containers(node: &Sandbox, target: &Path) -> Vec<(&'static str, Container, &'static str)> {
    let sub = sub_path(node, target, "sub");
    let at = |name: &str| directory(node, &format!("containers/{name}"));
    let start = |source: &Path, name: &'static str, propagation, read_only| {
        Container::start(source, &at(name), propagation, read_only)
    };
    use Propagation::{Private, Slave};
    vec![
        (
            "private",
            start(target, "private", Private, false),
            "sub/file",
        ),
        ("slave", start(target, "slave", Slave, false), "sub/file"),
        ("read-only", start(target, "ro", Private, true), "sub/file"),
        ("subPath", start(&sub, "sub", Private, false), "file"),
        ("subPath slave", start(&sub, "subs", Slave, false), "file"),
    ]
}

fn eio<T: std::fmt::Debug>(result: std::io::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
}

/// Closes `file` as a program does that looks at the outcome.
fn close(file: File) -> nix::Result<()> {
    nix::unistd::close(file.into_raw_fd())
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn readers_in_every_container_go_on_and_nothing_has_to_be_healed() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        node.store.put("docker", "sub/", "");
        node.store.put("docker", "sub/file", "content");
        node.store.put("docker", "large", content.clone());
        node.mount(&target, &node.options(json!({}))).success();
        let containers = containers(node, &target);
        let file = sub_path(node, &target, "sub/file");
        // An emptyDir inside the volume stays visible.
        fs::create_dir(target.join("empty")).unwrap();
        let empty = directory(node, "empty-dir");
        bind(&empty, &target.join("empty"));
        let mounts = node.mounts();
        let opened = File::open(target.join("large")).unwrap();
        let (ended, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let _end = EndOnDrop(&ended);
            let (ended, reads) = (&ended, &reads);
            let read_all = move |path: PathBuf, expected: &[u8]| {
                while !ended.load(Ordering::Relaxed) {
                    let found = fs::read(&path);
                    let found = found.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                    assert!(found == expected, "{}", path.display());
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            };
            for (_, container, file) in &containers {
                let path = container.path(file);
                scope.spawn(move || read_all(path, b"content"));
            }
            let file = file.clone();
            scope.spawn(move || read_all(file, b"content"));
            let (content, opened, target) = (&content, &opened, &target);
            scope.spawn(move || {
                // The kernel's cache must not answer for ossfs.
                for at in (0..).map(|n: u64| n * 7_919_000 % 2_900_000) {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut bytes = [0; 50_000];
                    opened.read_exact_at(&mut bytes, at).unwrap();
                    let at = usize::try_from(at).unwrap();
                    assert!(bytes == content[at..at + 50_000], "at {at}");
                    nix::fcntl::posix_fadvise(
                        opened,
                        0,
                        0,
                        nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
                    )
                    .unwrap();
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let names: BTreeSet<_> = fs::read_dir(target)
                        .unwrap()
                        .map(|entry| entry.unwrap().file_name())
                        .collect();
                    let expected = ["empty", "large", "sub"].map(Into::into);
                    assert_eq!(names, BTreeSet::from(expected));
                }
            });
            for round in 0..kills() {
                let before = reads.load(Ordering::Relaxed);
                node.end_daemon(Signal::SIGKILL);
                // The next one serves before it is killed: a request that was under way at five deaths
                // gets EIO, lest it is the one that kills them.
                fs::metadata(target.join(format!("none-{round}"))).unwrap_err();
                std::thread::sleep(SERVICE);
                let since = Instant::now();
                while reads.load(Ordering::Relaxed) < before + 20 {
                    assert!(since.elapsed() < PATIENCE, "readers stand still");
                    std::thread::yield_now();
                }
            }
        });
        assert_eq!(node.heal().unwrap(), "", "there is something to heal");
        assert_eq!(node.mounts(), mounts);
        fs::write(target.join("empty/own"), "x").unwrap();
        assert!(empty.join("own").exists());
        assert!(
            !node
                .store
                .keys("docker")
                .iter()
                .any(|key| key.contains("own"))
        );
        drop(opened);
        drop(containers);
        umount(&target.join("empty")).unwrap();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_writer_gets_eio_until_he_closes_and_others_do_not_notice() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT] {
            let name = format!("{signal}");
            let path = target.join(&name);
            fs::write(&path, "before").unwrap();
            let mut reader = File::open(&path).unwrap();
            let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
            let mut appender = OpenOptions::new().append(true).open(&path).unwrap();
            let mut created = File::create(target.join(format!("{name}-new"))).unwrap();
            writer.write_all(b"during").unwrap();
            created.write_all(b"during").unwrap();
            node.end_daemon(signal);
            for writer in [&mut writer, &mut appender, &mut created] {
                eio(writer.write_all(b"after"));
                eio(writer.sync_all());
                eio(writer.write_all(b"after"));
            }
            // Paths work, and so does a writer who comes now.
            let mut text = String::new();
            reader.seek(SeekFrom::Start(0)).unwrap();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "before", "{signal}");
            assert_eq!(fs::read_to_string(&path).unwrap(), "before");
            fs::write(target.join(format!("{name}-other")), "other").unwrap();
            for writer in [writer, appender, created] {
                assert_eq!(close(writer), Err(nix::errno::Errno::EIO), "{signal}");
            }
            fs::write(&path, "again").unwrap();
            assert_eq!(node.store.object("docker", &name).unwrap(), b"again");
            let other = node.store.object("docker", &format!("{name}-other"));
            assert_eq!(other.unwrap(), b"other");
        }
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn ossfs_ignores_the_signal_that_all_processes_get_at_a_shutdown() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let mut file = File::create(target.join("file")).unwrap();
        file.write_all(b"one").unwrap();
        let daemon = node.daemon();
        kill(Pid::from_raw(daemon), Signal::SIGTERM).unwrap();
        file.write_all(b" two").unwrap();
        close(file).unwrap();
        assert_eq!(node.daemons(), [daemon]);
        assert_eq!(node.store.object("docker", "file").unwrap(), b"one two");
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_was_closed_without_an_error_is_in_the_bucket() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let ended = AtomicBool::new(false);
        let written: Vec<Vec<(String, String)>> = std::thread::scope(|scope| {
            let end = EndOnDrop(&ended);
            let workers: Vec<_> = (0..8)
                .map(|worker| {
                    let (target, ended) = (&target, &ended);
                    scope.spawn(move || work(target, worker, ended))
                })
                .collect();
            for _ in 0..kills() {
                node.end_daemon(Signal::SIGKILL);
                // The next one serves before it is killed.
                fs::metadata(target.join("none")).unwrap_err();
                std::thread::sleep(SERVICE);
            }
            drop(end);
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        assert!(
            written.iter().all(|files| files.len() > 3),
            "too little was written"
        );
        for (name, content) in written.iter().flatten() {
            let found = node.store.object("docker", name);
            assert_eq!(found.as_deref(), Some(content.as_bytes()), "{name}");
        }
        node.unmount(&target).success();
    });
}

/// Writes files until `ended`, and returns those that were closed without an error.
fn work(target: &Path, worker: u32, ended: &AtomicBool) -> Vec<(String, String)> {
    let mut written = Vec::new();
    for number in 0.. {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{worker}-{number}");
        let content = name.repeat(number % 50 + 1);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(target.join(&name))?;
            for part in content.as_bytes().chunks(7) {
                file.write_all(part)?;
            }
            if number % 3 == 0 {
                file.sync_all()?;
            }
            close(file).map_err(std::io::Error::from)
        };
        match write() {
            Ok(()) => written.push((name, content)),
            Err(e) => assert_eq!(e.raw_os_error(), Some(5), "{name}: {e}"),
        }
    }
    written
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_ossfs_that_hangs_is_replaced_and_a_silent_store_is_no_reason() {
    let settings = Settings::config(json!({"hungAfterSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let hung = node.daemon();
        kill(Pid::from_raw(hung), Signal::SIGSTOP).unwrap();
        assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
        assert_ne!(node.daemon(), hung);

        let slow = node.daemon();
        node.store.put("docker", "slow", "content");
        let fault = node
            .store
            .inject("docker", Fault::Delay(Duration::from_secs(6)));
        assert_eq!(fs::read(target.join("slow")).unwrap(), b"content");
        assert_eq!(node.daemon(), slow, "replaced because of a slow store");
        node.store.remove_fault(fault);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_process_of_a_volume_may_be_killed() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let path = directory(node, "container");
        let container = Container::start(&target, &path, Propagation::Private, false);
        let mounts = node.mounts();
        for round in 0..5 {
            let mut reader = File::open(container.path("file")).unwrap();
            let mut writer = File::create(container.path(&format!("new-{round}"))).unwrap();
            writer.write_all(b"lost").unwrap();
            let [server] = node.servers("--child")[..] else {
                panic!("{:?}", node.servers("--child"));
            };
            kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "content");
            eio(writer.write_all(b"lost"));
            assert_eq!(close(writer), Err(nix::errno::Errno::EIO));
            assert_eq!(fs::read(container.path("file")).unwrap(), b"content");
            fs::write(container.path(&format!("after-{round}")), "x").unwrap();
        }
        assert_eq!(node.mounts(), mounts);
        assert_eq!(node.heal().unwrap(), "");
        drop(container);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_read_that_is_under_way_when_the_process_is_killed_is_answered() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let volumes = node.volumes();
        let directory = node.state_directory().join("volumes").join(&volumes[0]);
        for _ in 0..3 {
            let mut reader = File::open(target.join("file")).unwrap();
            let slow = node
                .store
                .inject("docker", Fault::Delay(Duration::from_millis(300)));
            let result = std::thread::scope(|scope| {
                let read = scope.spawn(|| {
                    let mut text = String::new();
                    reader.read_to_string(&mut text).map(|_| text)
                });
                let since = Instant::now();
                let in_flight = || {
                    let until = Instant::now() + PATIENCE;
                    alicloud_oss::serve::client::status(&directory, until)
                        .unwrap()
                        .in_flight
                };
                while in_flight() == 0 {
                    assert!(since.elapsed() < PATIENCE);
                }
                for server in node.servers("--child") {
                    kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
                }
                read.join().unwrap()
            });
            node.store.remove_fault(slow);
            match kernel_sends_again() {
                true => assert_eq!(result.unwrap(), "content"),
                false => eio(result),
            }
            // The kernel may have the content of before.
            nix::fcntl::posix_fadvise(
                &reader,
                0,
                0,
                nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED,
            )
            .unwrap();
        }
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_chrooted_process_and_a_nested_user_namespace_read_on() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        let options = node.options(json!({"kubernetes.io/readwrite": "ro"}));
        node.mount(&target, &options).success();
        // Root in a namespace of its own may mount there, and must not lift the flags of this one.
        let script = format!(
            "while read -r call; do case $call in \
               read) cat {0}/file; echo;; \
               lift) mount -o remount,bind,rw,suid,dev {0} 2>/dev/null && echo lifted || echo refused;; \
             esac; done",
            target.display()
        );
        let mut nested = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = nested.stdin.take().unwrap();
        let mut lines = BufReader::new(nested.stdout.take().unwrap()).lines();
        let mut ask = |call: &str| {
            writeln!(input, "{call}").unwrap();
            lines.next().unwrap().unwrap()
        };
        for _ in 0..3 {
            node.end_daemon(Signal::SIGKILL);
            assert_eq!(ask("read"), "content");
            assert_eq!(ask("lift"), "refused");
            std::thread::scope(|scope| {
                let chrooted = scope.spawn(|| {
                    // The root directory of this thread alone.
                    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
                    nix::unistd::chroot(&target).unwrap();
                    fs::read("/file").unwrap()
                });
                assert_eq!(chrooted.join().unwrap(), b"content");
            });
        }
        drop(input);
        assert!(nested.wait().unwrap().success());
        assert!(fs::write(target.join("file"), "x").is_err());
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_store_that_is_away_when_ossfs_dies_is_waited_for() {
    let settings = Settings::config(json!({"mountTimeoutSeconds": 3}));
    with_settings(DRIVER, &settings, |node| {
        node.store.create_bucket("other");
        node.store.put("docker", "file", "content");
        let [target, next, other] = ["u1", "u2", "u3"].map(|pod| node.target(pod, "v"));
        let options = node.options(json!({}));
        node.mount(&target, &options).success();
        node.mount(&other, &node.options(json!({"bucket": "other"})))
            .success();
        let path = directory(node, "container");
        let container = Container::start(&target, &path, Propagation::Private, false);
        // Silent, and refusing: then s3fs ends, again and again.
        for silent in [true, false] {
            match silent {
                true => drop(node.store.inject("docker", Fault::Hang)),
                false => node.store.restrict("docker", &[]),
            }
            let daemon = node.daemon_of(&target);
            kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
            assert!(support::Pidfd::wait_for_end(daemon, PATIENCE));
            // What was seen a second ago does not count.
            fs::remove_file(node.volume_of(&target).join("probed")).unwrap();
            let (waits, refused, healed, elsewhere, read) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| fs::read(container.path("file")));
                // A Pod that comes meanwhile is told, and changes nothing.
                let refused = node.mount(&next, &options);
                let healed = node.heal();
                let elsewhere = fs::write(other.join("file"), "x");
                let waits = !reader.is_finished();
                node.store.clear_faults();
                node.store.unrestrict("docker");
                // And has it started at once.
                node.mount(&next, &options).success();
                (waits, refused, healed, elsewhere, reader.join().unwrap())
            });
            let told = match silent {
                // "has not begun to serve", or "the store has not answered ossfs".
                true => "check the url, and that this node can reach it",
                false => mounter().refused,
            };
            assert!(refused.failure().contains(told), "{}", refused.message);
            assert!(waits, "the container's read has not waited");
            assert_eq!(healed.unwrap(), "", "nothing is to be healed");
            elsewhere.unwrap();
            assert_eq!(read.unwrap(), b"content");
            assert_eq!(fs::read(next.join("file")).unwrap(), b"content");
            node.unmount(&next).success();
        }
        drop(container);
        for target in [&target, &other] {
            node.unmount(target).success();
        }
    });
}

/// The configuration of a container with `volume` at `/data`, for runc.
fn bundle(volume: &Path) -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/busybox", "sh", "-c", "echo ready; exec /bin/busybox cat"],
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", "rprivate"]},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
    })
}

#[test]
#[ignore = "needs root, /dev/fuse, s3fs, runc and busybox"]
fn a_container_of_runc_needs_no_healing() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        fs::write(target.join("file"), "content").unwrap();
        for name in ["bin", "data", "proc"] {
            directory(node, &format!("bundle/rootfs/{name}"));
        }
        fs::copy("/bin/busybox", node.path("bundle/rootfs/bin/busybox")).unwrap();
        fs::write(node.path("bundle/config.json"), bundle(&target).to_string()).unwrap();
        let name = format!("oss-test-{}", std::process::id());
        let runc = || {
            let mut command = Command::new("runc");
            command.arg("--root").arg(node.path("bundle/state"));
            command
        };
        let mut run = runc()
            .args(["run", "--bundle"])
            .arg(node.path("bundle"))
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = run.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let state = runc().args(["state", &name]).output().unwrap().stdout;
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        let file = PathBuf::from(format!("/proc/{}/root/data/file", state["pid"]));
        for _ in 0..3 {
            assert_eq!(fs::read(&file).unwrap(), b"content");
            node.end_daemon(Signal::SIGKILL);
            assert_eq!(fs::read(&file).unwrap(), b"content");
            let [server] = node.servers("--child")[..] else {
                panic!("{:?}", node.servers("--child"));
            };
            kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"content");
        }
        // Its stdin closes, and with it the container ends.
        drop(run.stdin.take());
        assert!(run.wait().unwrap().success());
        node.unmount(&target).success();
    });
}

/// The real uid of a process.
fn uid(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn without_the_relay_ossfs_is_confined_all_the_same_and_its_death_is_that_of_the_mount() {
    for (config, more) in [
        (json!({"relay": false}), json!({})),
        (json!({}), json!({"relay": "false"})),
    ] {
        with_settings(DRIVER, &Settings::config(config), |node| {
            node.store.put("docker", "file", "content");
            let [target, relayed] = ["u1", "u2"].map(|pod| node.target(pod, "v"));
            let options = node.options(more);
            node.mount(&target, &options).success();
            node.mount(&relayed, &node.options(json!({"relay": "true"})))
                .success();
            let daemon = node.daemon_of(&target);
            assert_ne!(
                daemon,
                node.daemon_of(&relayed),
                "they never share an ossfs"
            );
            let (uid, other) = (uid(daemon), uid(node.daemon_of(&relayed)));
            assert!(uid != 0 && uid != other, "{uid} and {other}");
            fs::write(target.join("new"), "written").unwrap();
            assert_eq!(node.store.object("docker", "new").unwrap(), b"written");
            let path = directory(node, "container");
            let container = Container::start(&target, &path, Propagation::Private, false);
            kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
            assert!(support::Pidfd::wait_for_end(daemon, PATIENCE));
            // kubelet asks again.
            let args = ["mount", target.to_str().unwrap(), &options.to_string()];
            node.kubelet.call(&args).success();
            let is_served = || fs::read(target.join("file")).is_ok_and(|text| text == b"content");
            support::wait_until("it is served anew", is_served);
            // 107: ENOTCONN.
            let error = fs::read(container.path("file")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(107), "{error}");
            assert_eq!(fs::read(relayed.join("file")).unwrap(), b"content");
            drop(container);
            for target in [&target, &relayed] {
                node.unmount(target).success();
            }
        });
    }
}
