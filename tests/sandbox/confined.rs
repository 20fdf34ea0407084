//! What a daemon that has been taken over can see, do and take.

use crate::world::{World, with_world};
use alicloud_oss::sandbox::{End, Group, Reachable, Spec};
use nix::sys::resource::{Resource, getrlimit};
use std::os::unix::fs::chown;
use std::process::Command;

/// What the evil daemon prints when it is to do `deed`, once it has ended.
fn evil(world: &World, deed: &str, words: &[(&str, String)]) -> (End, Vec<String>) {
    let mut daemon = world.start(&world.evil(deed, words)).unwrap();
    let end = daemon.wait().unwrap();
    (end, said(world))
}

/// What it printed, without what the test runner prints besides.
fn said(world: &World) -> Vec<String> {
    let output = world.output();
    let lines = output
        .lines()
        .filter(|line| line.contains(": ") && !line.starts_with("test ") || *line == "it lives");
    lines.map(str::to_owned).collect()
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn an_evil_daemon_sees_nothing_of_the_node() {
    with_world(|world| {
        let directory = world.directory.path();
        std::fs::write(directory.join("other-key"), "docker:another:secret").unwrap();
        std::fs::create_dir(directory.join("kubelet")).unwrap();
        let path = |name: &str| directory.join(name).display().to_string();
        let (end, lines) = evil(
            world,
            "look",
            &[
                ("key", path("key")),
                ("other", path("other-key")),
                ("kubelet", path("kubelet")),
                ("staging", path("staging")),
            ],
        );
        assert_eq!(end, End::Exited(0), "{}", world.output());
        let root = list_of_root();
        assert_eq!(
            lines,
            [
                "own key: docker:LTAIsandbox:sEcrEt",
                "another key: ENOENT",
                "shadow: ENOENT",
                "kubelet: ENOENT",
                &format!("root: {root}"),
                "etc: group hosts passwd resolv.conf",
                "dev: full fuse null random urandom zero",
                "proc: ENOENT",
                "sys: ENOENT",
                "mount point: ",
                "cores: 1 1",
                "environment: HOME PATH",
            ]
        );
    });
}

/// The root directory inside: what the node has of programs and libraries, and five directories,
/// one of them for this program, which is in none of the former.
fn list_of_root() -> String {
    let program = std::env::current_exe().unwrap();
    let own = program.components().nth(1).unwrap();
    let system = ["bin", "lib", "lib32", "lib64", "libx32", "sbin", "usr"]
        .into_iter()
        .filter(|name| std::fs::metadata(format!("/{name}")).is_ok());
    let mut names: Vec<&str> = system.chain(["dev", "etc", "run", "tmp"]).collect();
    names.extend(own.as_os_str().to_str());
    names.sort_unstable();
    names.dedup();
    names.join(" ")
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn an_evil_daemon_reaches_nobody() {
    with_world(|world| {
        let mut outside = Command::new("sleep").arg("600").spawn().unwrap();
        let key = world.path("key").display().to_string();
        let words = [("outside", outside.id().to_string()), ("key", key)];
        let (end, lines) = evil(world, "act", &words);
        assert_eq!(
            outside.try_wait().unwrap(),
            None,
            "the process outside lives"
        );
        outside.kill().unwrap();
        outside.wait().unwrap();
        assert_eq!(end, End::Exited(0), "{}", world.output());
        assert_eq!(
            lines,
            [
                "kill: ESRCH",
                "trace: EPERM",
                "trace the watcher: EPERM",
                "kill the watcher: done",
                "mount: EPERM",
                "remount: EPERM",
                "unmount: EPERM",
                "new user namespace: EPERM",
                "new mount namespace: EPERM",
                "new network namespace: EPERM",
                "join a namespace: EPERM",
                "chroot: EPERM",
                "device: EPERM",
                "fifo: EPERM",
                "setuid: EINVAL",
                "setgid: EINVAL",
                "setgroups: EPERM",
                "module: EPERM",
                "local socket: EPERM",
                "packets: EPERM",
                "the network: done",
                "more files: EPERM",
                "write /: EROFS",
                "write /etc: EROFS",
                "write /usr: EROFS",
                "write /dev: EROFS",
                "write a live file: EROFS",
                "write the stub: EROFS",
                "write its own directory: done",
                "write its key: EROFS",
                "run its own program: EACCES",
                "it lives",
            ]
        );
    });
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn an_evil_daemon_takes_no_more_than_its_share() {
    with_world(|world| {
        let (hard, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let (end, lines) = evil(world, "open", &[]);
        assert_eq!(end, End::Exited(0));
        // No limit here is above 100,000, or all of them could be opened.
        let expected = match lines[0].as_str() {
            "opened: 100000 Ok(())" => hard > 100_000,
            line => line.ends_with("Err(EMFILE)"),
        };
        assert!(expected, "{lines:?} {hard}");
    });
    with_world(|world| {
        let (end, lines) = evil(world, "start", &[]);
        assert_eq!(end, End::Exited(0));
        let line = lines[0].strip_prefix("started: ").unwrap();
        let (number, result) = line.split_once(' ').unwrap();
        assert!(
            (1000..4096).contains(&number.parse::<u32>().unwrap()),
            "{line}"
        );
        assert_eq!(result, "Err(EAGAIN)");
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and the memory controller of control groups"]
fn an_evil_daemon_that_takes_all_memory_is_ended_alone() {
    with_world(|world| {
        let name = format!("test-{}", std::process::id());
        let Some(group) = Group::create(&name, 64 << 20).unwrap() else {
            panic!("this node has no memory controller");
        };
        let mut spec = world.evil("take", &[]);
        spec.groups.push(group.procs());
        let mut daemon = world.start(&spec).unwrap();
        assert_eq!(daemon.wait().unwrap(), End::Killed(9), "{}", world.output());
        let directory = group.procs();
        drop(group);
        assert!(!directory.exists(), "the group is gone");
    });
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_daemon_reaches_what_it_was_given_and_no_more() {
    with_world(|world| {
        let path = |name: &str| world.path(name).join("file");
        for name in ["read", "write", "none"] {
            std::fs::create_dir(world.path(name)).unwrap();
            std::fs::write(path(name), name).unwrap();
            chown(path(name), Some(world.uid), Some(world.uid)).unwrap();
            chown(world.path(name), Some(world.uid), Some(world.uid)).unwrap();
        }
        let words = ["read", "write", "none"].map(|name| (name, path(name).display().to_string()));
        let mut spec = world.evil("reach", &words);
        spec.reachable = [("read", false), ("write", true)]
            .map(|(name, writable)| Reachable {
                path: world.path(name),
                writable,
            })
            .into();
        let mut daemon = world.start(&spec).unwrap();
        assert_eq!(daemon.wait().unwrap(), End::Exited(0), "{}", world.output());
        assert_eq!(
            said(world),
            [
                "read read: read",
                "write read: EROFS",
                "read write: write",
                "write write: done",
                "read none: ENOENT",
                "write none: ENOENT",
            ]
        );
    });
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn a_sandbox_that_cannot_be_built_says_why() {
    type Change = fn(&mut Spec);
    let cases: [(Change, &str); 5] = [
        (
            |spec| spec.program = "/nowhere/ossfs".into(),
            "find /nowhere/ossfs: No such file",
        ),
        (
            |spec| spec.program = "/usr/lib/os-release".into(),
            "start /usr/lib/os-release: Permission denied",
        ),
        (
            |spec| spec.temporary = "/nowhere".into(),
            "bind /nowhere into the sandbox: No such file",
        ),
        (
            |spec| spec.key_file = Some("/nowhere/key".into()),
            "read /nowhere/key: No such file",
        ),
        (
            |spec| {
                spec.reachable.push(Reachable {
                    path: "/".into(),
                    writable: false,
                });
            },
            "the root directory is not to be reachable",
        ),
    ];
    for (change, expected) in cases {
        with_world(|world| {
            let mut spec = world.evil("look", &[]);
            change(&mut spec);
            let Err(error) = world.start(&spec) else {
                panic!("{expected}: it was built");
            };
            let error = format!("{error:#}");
            assert!(error.starts_with(expected), "{error}");
            assert_eq!(
                std::fs::read_dir(&spec.root).unwrap().count(),
                0,
                "{expected}"
            );
        });
    }
}
