//! The mount outlives its ossfs: paths and readers go on, whoever had a file open for writing gets EIO
//! until he closes it, nothing is lost in silence, and nothing has to be done in any container.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Container, Fault, PATIENCE, Propagation, Sandbox, Settings, with_settings};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// How many times ossfs is killed: OSS_TEST_KILLS, or a number that a test run bears.
fn kills() -> u32 {
    std::env::var("OSS_TEST_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(15)
}

/// A node with the relay, and `more` in its configuration.
fn relay(more: serde_json::Value) -> Settings {
    let mut settings = Settings::config(more);
    settings.config.insert("relay".to_owned(), true.into());
    settings
}

/// The node's only daemon, once there is one.
fn daemon(node: &Sandbox) -> i32 {
    let since = Instant::now();
    loop {
        match node.daemons().as_slice() {
            [pid] => return *pid,
            // Between two of them.
            pids => assert!(since.elapsed() < PATIENCE, "{pids:?}"),
        }
        std::thread::yield_now();
    }
}

/// Sends `signal` to the node's only daemon, and returns once it has ended.
fn end_daemon(node: &Sandbox, signal: Signal) {
    let pid = daemon(node);
    kill(Pid::from_raw(pid), signal).unwrap();
    assert!(support::Pidfd::wait_for_end(pid, PATIENCE), "{signal}");
}

/// The processes that serve volumes of this node: `oss serve` in the part `part`.
fn servers(node: &Sandbox, part: &str) -> Vec<i32> {
    let volumes = node.state_directory().join("volumes");
    node.processes(&format!("serve\0{part}\0{}/", volumes.display()))
}

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
    with_settings(DRIVER, &relay(json!({})), |node| {
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
                end_daemon(node, Signal::SIGKILL);
                // The next one serves before it is killed: a request that was under way at five deaths
                // gets EIO, lest it is the one that kills them.
                fs::metadata(target.join(format!("none-{round}"))).unwrap_err();
                let since = Instant::now();
                while reads.load(Ordering::Relaxed) < before + 20 {
                    assert!(since.elapsed() < PATIENCE, "readers stand still");
                    std::thread::yield_now();
                }
            }
            ended.store(true, Ordering::Relaxed);
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
    with_settings(DRIVER, &relay(json!({})), |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGTERM] {
            let name = format!("{signal}");
            let path = target.join(&name);
            fs::write(&path, "before").unwrap();
            let mut reader = File::open(&path).unwrap();
            let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
            let mut appender = OpenOptions::new().append(true).open(&path).unwrap();
            let mut created = File::create(target.join(format!("{name}-new"))).unwrap();
            writer.write_all(b"during").unwrap();
            created.write_all(b"during").unwrap();
            end_daemon(node, signal);
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
fn what_was_closed_without_an_error_is_in_the_bucket() {
    with_settings(DRIVER, &relay(json!({})), |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let ended = AtomicBool::new(false);
        let written: Vec<Vec<(String, String)>> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..8)
                .map(|worker| {
                    let (target, ended) = (&target, &ended);
                    scope.spawn(move || work(target, worker, ended))
                })
                .collect();
            for _ in 0..kills() {
                end_daemon(node, Signal::SIGKILL);
                // The next one serves before it is killed.
                fs::metadata(target.join("none")).unwrap_err();
                std::thread::sleep(Duration::from_millis(100));
            }
            ended.store(true, Ordering::Relaxed);
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
    let settings = relay(json!({"hungAfterSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let hung = daemon(node);
        kill(Pid::from_raw(hung), Signal::SIGSTOP).unwrap();
        assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
        assert_ne!(daemon(node), hung);

        let slow = daemon(node);
        node.store.put("docker", "slow", "content");
        let fault = node
            .store
            .inject("docker", Fault::Delay(Duration::from_secs(6)));
        assert_eq!(fs::read(target.join("slow")).unwrap(), b"content");
        assert_eq!(daemon(node), slow, "replaced because of a slow store");
        node.store.remove_fault(fault);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_process_of_a_volume_may_be_killed() {
    with_settings(DRIVER, &relay(json!({})), |node| {
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
            let [server] = servers(node, "--child")[..] else {
                panic!("{:?}", servers(node, "--child"));
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
fn where_all_is_killed_heal_makes_a_new_mount_and_names_the_pods() {
    with_settings(DRIVER, &relay(json!({})), |node| {
        let (first, second) = (node.target("u1", "oss1"), node.target("u2", "oss1"));
        node.store.put("docker", "file", "content");
        for target in [&first, &second] {
            node.mount(target, &node.options(json!({}))).success();
        }
        let at = |name: &str| directory(node, name);
        let slave = Container::start(&first, &at("slave"), Propagation::Slave, false);
        let private = Container::start(&second, &at("private"), Propagation::Private, false);
        let [parent] = servers(node, "--parent")[..] else {
            panic!("{:?}", servers(node, "--parent"));
        };
        let daemon = daemon(node);
        kill(Pid::from_raw(parent), Signal::SIGKILL).unwrap();
        // With it goes everything.
        assert!(support::Pidfd::wait_for_end(daemon, PATIENCE));
        while fs::read(first.join("file")).is_ok() {}
        let healed = node.heal().unwrap();
        assert!(healed.contains("restart the Pods u1, u2"), "{healed}");
        for target in [&first, &second] {
            assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
        }
        assert_eq!(fs::read(slave.path("file")).unwrap(), b"content");
        // 107: ENOTCONN. It is this Pod that was named.
        let error = fs::read(private.path("file")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(107), "{error}");
        assert_eq!(node.heal().unwrap(), "");
        drop((slave, private));
        node.unmount(&first).success();
        node.unmount(&second).success();
    });
}
