//! ossfs in its sandbox: that a daemon serves its mount from there, and what one that has been taken
//! over can do.

#[path = "sandbox/world.rs"]
mod world;

use alicloud_oss::sandbox::{End, Mode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use world::with_world;

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
                for line in [
                    "Uid:\t1879000001\t1879000001\t1879000001\t1879000001",
                    "Gid:\t1879000001\t1879000001\t1879000001\t1879000001",
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
            // s3fs 1.90 now and then aborts while it takes itself down.
            let by_itself = [End::Exited(0), End::Killed(Signal::SIGABRT as i32)];
            assert!(by_itself.contains(&end), "{mode:?}: {end}");
        });
    }
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
                kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
                let end = daemon.wait().unwrap();
                assert_eq!(end, End::Killed(signal as i32), "{mode:?} {signal}");
                assert_eq!(daemon.wait().unwrap(), end);
            });
        }
    }
}
