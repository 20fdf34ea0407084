//! ossfs in its sandbox: that a daemon serves its mount from there, and what one that has been taken
//! over can do.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "some of these are run as programs by others; all belong to tests"
)]

mod confined;
mod evil;
mod old_node;
mod world;

use alicloud_oss::sandbox::{End, Mode, spawn};
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use world::{ended_by_itself, with_world};

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_daemon_serves_its_mount() {
    for mode in [Mode::Off, Mode::Full] {
        with_world(|world| {
            world.store.put("docker", "greeting", "hello");
            let mut daemon = world.start(&world.spec(mode)).unwrap();
            let file = world.staging().join("greeting");
            assert_eq!(std::fs::read_to_string(file).unwrap(), "hello", "{mode:?}");
            std::fs::write(world.staging().join("written"), "there").unwrap();
            assert_eq!(world.store.object("docker", "written").unwrap(), b"there");
            assert_eq!(daemon.try_wait().unwrap(), None);
            assert_eq!(daemon.left_out(), [] as [&str; 0], "on this node all works");
            let pid = daemon.daemon_pid().unwrap();
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            if mode == Mode::Full {
                let uid = world.uid;
                for line in [
                    &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"),
                    &format!("Gid:\t{uid}\t{uid}\t{uid}\t{uid}"),
                    "Groups:\t ",
                    "CapInh:\t0000000000000000",
                    "CapPrm:\t0000000000000000",
                    "CapEff:\t0000000000000000",
                    "CapBnd:\t0000000000000000",
                    "CapAmb:\t0000000000000000",
                    "NoNewPrivs:\t1",
                    "Seccomp:\t2",
                ] {
                    assert!(status.lines().any(|l| l == line), "{line:?}: {status}");
                }
                assert!(daemon.uses_user_namespace());
            }
            world.unmount();
            let end = daemon.wait().unwrap();
            assert!(ended_by_itself(end), "{mode:?}: {end}");
        });
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_running_daemon_sees_name_servers_that_are_replaced() {
    with_world(|world| {
        let daemon = world.start(&world.spec(Mode::Full)).unwrap();
        let inside = format!(
            "/proc/{}/root/etc/resolv.conf",
            daemon.daemon_pid().unwrap()
        );
        // The link is absolute: it is followed there.
        let live = inside.replace("/resolv.conf", "/oss-live/resolv.conf");
        assert_eq!(
            std::fs::read_link(&inside).unwrap(),
            Path::new("/etc/oss-live/resolv.conf")
        );
        assert_eq!(
            std::fs::read(&live).unwrap(),
            std::fs::read("/etc/resolv.conf").unwrap()
        );
        // In this test's mount namespace alone.
        let new = world.path("new");
        std::fs::write(&new, "nameserver 192.0.2.1\n").unwrap();
        let none = None::<&Path>;
        mount(Some(&new), "/etc/resolv.conf", none, MsFlags::MS_BIND, none).unwrap();
        world.live_files.borrow_mut().refresh();
        assert_eq!(
            std::fs::read_to_string(&live).unwrap(),
            "nameserver 192.0.2.1\n"
        );
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn how_a_daemon_ended_is_told_exactly() {
    for mode in [Mode::Off, Mode::Full] {
        for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGABRT] {
            with_world(|world| {
                let mut daemon = world.start(&world.spec(mode)).unwrap();
                let pid = daemon.daemon_pid().unwrap();
                world.wait_until_served();
                kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
                let end = daemon.wait().unwrap();
                assert_eq!(end, End::Killed(signal as i32), "{mode:?} {signal}");
                assert_eq!(daemon.wait().unwrap(), end);
            });
        }
    }
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn all_ends_with_the_process_that_wanted_it() {
    with_world(|world| {
        let spec = serde_json::to_string(&world.evil("idle", &[])).unwrap();
        let mut caller = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_caller", "--ignored", "--nocapture"])
            .env("SPEC", spec)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(caller.stdout.take().unwrap());
        let pid = output
            .lines()
            .find_map(|line| line.unwrap().strip_prefix("daemon ")?.parse().ok())
            .unwrap();
        let daemon = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        caller.kill().unwrap();
        caller.wait().unwrap();
        let mut fds = [PollFd::new(daemon.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
    });
}

#[test]
#[ignore = "is run by the test above"]
fn a_caller() {
    let Ok(spec) = std::env::var("SPEC") else {
        return;
    };
    let null = || std::fs::File::open("/dev/null").unwrap().into();
    let spec = serde_json::from_str(&spec).unwrap();
    let mut daemon = spawn(&spec, null(), null()).unwrap();
    println!("\ndaemon {}", daemon.daemon_pid().unwrap());
    daemon.wait().unwrap();
}
