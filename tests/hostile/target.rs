//! Tricks with TARGET: kubelet makes it, but what lies on the way to it may have been changed
//! meanwhile.

use crate::DRIVER;
use crate::recorder::{Recorder, Then};
use crate::refused::Untouched;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Answer, Sandbox, with_sandbox};

#[test]
fn a_target_that_is_no_plain_absolute_path_is_refused() {
    let node = Untouched::new();
    let long = format!("/{}", "a".repeat(5000));
    let mut targets: Vec<OsString> = [
        "",
        " ",
        ".",
        "..",
        "/",
        "//",
        "///",
        "a",
        "a/b",
        "./a",
        "../a",
        "~",
        "$HOME",
        "-o",
        "--help",
        "-h",
        "/..",
        "/.",
        "/a/..",
        "/a/.",
        "/a/../b",
        "/a/./b",
        "/a//b",
        "//a",
        "/a///",
        "/a/../../etc",
        "/a\nb",
        "/a\tb",
        "/a\u{7f}b",
        "/a\u{1b}[2Jb",
        "/a\u{85}b",
        "\u{2215}a",
        "C:\\a",
        "file:///a",
        &long,
    ]
    .map(OsString::from)
    .to_vec();
    targets.push(OsString::from_vec(b"/a\xff".to_vec()));
    targets.push(OsString::from_vec(b"/\xc0\xae\xc0\xae/a".to_vec()));
    let json = json!({
        "bucket": "docker", "url": "host", "akId": "i", "akSecret": "s",
    })
    .to_string();
    assert!(targets.len() >= 37);
    for target in &targets {
        let name = format!("TARGET {target:?}");
        let answer = node
            .kubelet
            .call(&[OsStr::new("mount"), target, OsStr::new(&json)]);
        node.assert_refused(&name, &answer, &["TARGET"]);
        let answer = node.kubelet.call(&[OsStr::new("unmount"), target]);
        node.assert_refused(&name, &answer, &["TARGET"]);
    }
}

fn mount_at(node: &Sandbox, target: &Path) -> Answer {
    let options = node.options(json!({})).to_string();
    let arguments = [
        OsStr::new("mount"),
        target.as_os_str(),
        OsStr::new(&options),
    ];
    node.kubelet.call(&arguments)
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_target_behind_a_link_or_that_is_no_empty_directory_is_refused() {
    type Trick = fn(&Sandbox, &Path);
    let tricks: [(&str, &str, Trick); 11] = [
        (
            "a link to a directory",
            "is a symbolic link or not a directory",
            |node, target| {
                symlink(node.path("canary"), target).unwrap();
            },
        ),
        (
            "a link to nothing",
            "is a symbolic link or not a directory",
            |node, target| {
                symlink(node.path("nothing"), target).unwrap();
            },
        ),
        (
            "a link to itself",
            "is a symbolic link or not a directory",
            |_, target| {
                symlink(target, target).unwrap();
            },
        ),
        (
            "a relative link",
            "is a symbolic link or not a directory",
            |_, target| {
                symlink("..", target).unwrap();
            },
        ),
        (
            "a link to the root",
            "is a symbolic link or not a directory",
            |_, target| {
                symlink("/", target).unwrap();
            },
        ),
        (
            "a link in the middle",
            "is a symbolic link or not a directory",
            |node, target| {
                let middle = target.parent().unwrap();
                fs::remove_dir(middle).unwrap();
                fs::create_dir(node.path("canary-v")).unwrap();
                fs::create_dir(node.path("canary-v").join(target.file_name().unwrap())).unwrap();
                symlink(node.path("canary-v"), middle).unwrap();
            },
        ),
        (
            "a file",
            "is a symbolic link or not a directory",
            |_, target| {
                fs::write(target, "x").unwrap();
            },
        ),
        (
            "a file in the middle",
            "is a symbolic link or not a directory",
            |_, target| {
                fs::remove_dir(target.parent().unwrap()).unwrap();
                fs::write(target.parent().unwrap(), "x").unwrap();
            },
        ),
        (
            "a FIFO",
            "is a symbolic link or not a directory",
            |_, target| {
                nix::unistd::mkfifo(target, nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
        ),
        ("nothing", "does not exist", |_, _| {}),
        (
            "a directory that is not empty",
            "is not empty",
            |_, target| {
                fs::create_dir(target).unwrap();
                fs::write(target.join("file"), "x").unwrap();
            },
        ),
    ];
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::Serve, json!({}));
        for (n, (name, says, trick)) in tricks.into_iter().enumerate() {
            let target = node.target(&format!("u{n}"), "v");
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            trick(node, &target);
            let answer = mount_at(node, &target);
            let message = answer.failure();
            assert!(message.contains(says), "{name}: {message}");
            assert!(
                message.len() < 900 && !message.contains(&node.secret),
                "{name}"
            );
            assert_eq!(recorder.arguments(), None, "{name}: ossfs was started");
            recorder.assert_nothing_left(name);
        }
        assert_eq!(fs::read_dir(node.path("canary-v/v")).unwrap().count(), 0);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_target_that_carries_something_else_is_left_alone() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u", "v");
        fs::create_dir_all(&target).unwrap();
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &target, Some("tmpfs"), flags, none).unwrap();
        fs::write(target.join("file"), "x").unwrap();
        let before = node.mounts();
        let message = mount_at(node, &target).failure().to_owned();
        assert!(message.contains("already has another mount"), "{message}");
        assert_eq!(node.mounts(), before);
        assert_eq!(node.key_files().len(), 0);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "x");
        nix::mount::umount(&target).unwrap();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_unmount_follows_no_link_to_another_volume() {
    with_sandbox(DRIVER, |node| {
        let other = node.target("u1", "v");
        node.mount(&other, &node.options(json!({}))).success();
        let before = node.mounts();
        let link = node.target("u2", "v");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&other, &link).unwrap();
        node.kubelet
            .call(&[OsStr::new("unmount"), link.as_os_str()]);
        assert_eq!(node.mounts(), before, "a link in the last component");
        fs::remove_file(&link).unwrap();
        let middle = link.parent().unwrap();
        fs::remove_dir(middle).unwrap();
        symlink(other.parent().unwrap(), middle).unwrap();
        node.kubelet
            .call(&[OsStr::new("unmount"), link.as_os_str()])
            .failure();
        assert_eq!(node.mounts(), before, "a link in the middle");
        node.unmount(&other).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_volume_may_have_any_name_that_a_directory_may_have() {
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::Serve, json!({}));
        for name in [
            "a b",
            "-o",
            "--help",
            "a,suid",
            "a\\040b",
            "a\\x2cb",
            "$(touch CANARY)",
            "`id`",
            "'\"",
            "%n%s",
            "a:b",
            "...",
            "\u{202e}a",
            "\u{f6}\u{4e2d}",
        ] {
            // A name holds no slash.
            let name = name.replace("CANARY", "bird");
            let target = node.target("u", &name);
            node.mount(&target, &node.options(json!({}))).success();
            fs::write(target.join("file"), "x").unwrap();
            node.unmount(&target).success();
            assert!(!target.exists(), "{name}");
            recorder.assert_nothing_left(&name);
        }
    });
}

/// Has kubelet's root directory be `/mnt/data/kubelet` of the test's own mounts, behind the link
/// `/mnt/kubelet`; returns a TARGET by the link and by its real path, which exists.
fn moved_root(pod: &str) -> (PathBuf, PathBuf) {
    let rest = format!("pods/{pod}/volumes/alicloud~oss/v");
    if !Path::new("/mnt/data").exists() {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(
            Some("tmpfs"),
            "/mnt",
            Some("tmpfs"),
            flags,
            Some("mode=755"),
        )
        .unwrap();
        fs::create_dir_all("/mnt/data/kubelet").unwrap();
        symlink("data/kubelet", "/mnt/kubelet").unwrap();
    }
    let real = Path::new("/mnt/data/kubelet").join(&rest);
    fs::create_dir_all(&real).unwrap();
    (Path::new("/mnt/kubelet").join(rest), real)
}

/// How much is mounted at `path` in the test's own namespace, which is this thread's.
fn mounts_at(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point) == path).count()
}

fn unmount_at(node: &Sandbox, target: &Path) -> Answer {
    let arguments = [OsStr::new("unmount"), target.as_os_str()];
    node.kubelet.call(&arguments)
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn kubelets_root_directory_may_be_reached_through_a_link_of_roots() {
    with_sandbox(DRIVER, |node| {
        let (linked, real) = moved_root("u1");
        mount_at(node, &linked).success();
        fs::write(real.join("file"), "x").unwrap();
        // By either path it is the same one.
        mount_at(node, &real).success();
        assert_eq!(mounts_at(&real), 1);
        unmount_at(node, &linked).success();
        assert_eq!(mounts_at(&real), 0);
        assert_eq!(node.store.object("docker", "file").unwrap(), b"x");
        node.assert_clean();
        unmount_at(node, &linked).success();

        // What the old driver has mounted there, before the driver and the root directory changed.
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), &real, Some("tmpfs"), flags, none).unwrap();
        unmount_at(node, &linked).success();
        assert_eq!(mounts_at(&real), 0);

        // Whoever can write to a directory on the way could lead it elsewhere.
        for directory in ["/mnt", "/mnt/data", "/mnt/data/kubelet"] {
            for (mode, owner) in [(0o777, 0), (0o755, 1000)] {
                fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
                chown(directory, Some(owner), None).unwrap();
                for answer in [mount_at(node, &linked), unmount_at(node, &linked)] {
                    let message = answer.failure();
                    let expected =
                        format!("{directory} is on the way through a symbolic link and ");
                    assert!(message.contains(&expected), "{message}");
                }
                fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
                chown(directory, Some(0), None).unwrap();
            }
        }
        lchown("/mnt/kubelet", Some(1000), None).unwrap();
        assert!(
            mount_at(node, &linked)
                .failure()
                .contains("belongs to user 1000")
        );
        nix::mount::umount("/mnt").unwrap();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn from_pods_on_no_link_is_followed_whosever_it_is() {
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::Serve, json!({}));
        let (linked, real) = moved_root("u1");
        // The same tree, where a link leads to at each depth.
        let other = Path::new("/mnt/data/other");
        fs::create_dir_all(other.join("pods/u1/volumes/alicloud~oss/v")).unwrap();
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::empty();
        let canary = other.join("pods/u1/volumes/alicloud~oss/v");
        nix::mount::mount(Some("tmpfs"), &canary, Some("tmpfs"), flags, none).unwrap();
        for part in real.ancestors().take(5) {
            let rest = part.strip_prefix("/mnt/data/kubelet").unwrap();
            let name = part.display();
            fs::rename(part, "/mnt/data/kept").unwrap();
            symlink(other.join(rest), part).unwrap();
            for target in [&linked, &real] {
                let message = mount_at(node, target).failure().to_owned();
                let expected = format!("{name} is a symbolic link or not a directory");
                assert!(message.contains(&expected), "{name}: {message}");
                unmount_at(node, target);
                assert_eq!(mounts_at(&canary), 1, "{name}: unmounted");
                assert_eq!(recorder.arguments(), None, "{name}: ossfs was started");
            }
            fs::remove_file(part).unwrap();
            fs::rename("/mnt/data/kept", part).unwrap();
        }
        nix::mount::umount(&canary).unwrap();
        nix::mount::umount("/mnt").unwrap();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_link_that_comes_and_goes_during_calls_is_never_followed() {
    with_sandbox(DRIVER, |node| {
        let (linked, real) = moved_root("u1");
        let volumes = Path::new("/mnt/data/kubelet/pods/u1/volumes");
        let canary = Path::new("/mnt/data/canary/alicloud~oss/v");
        fs::create_dir_all(canary).unwrap();
        let link = Path::new("/mnt/data/link");
        symlink("/mnt/data/canary", link).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let here = nix::fcntl::AT_FDCWD;
                let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                while !done.load(Ordering::Relaxed) {
                    nix::fcntl::renameat2(here, volumes, here, link, exchange).unwrap();
                }
                if volumes.is_symlink() {
                    nix::fcntl::renameat2(here, volumes, here, link, exchange).unwrap();
                }
            });
            for _ in 0..20 {
                mount_at(node, &linked);
                assert_eq!(mounts_at(canary), 0, "mounted behind the link");
                unmount_at(node, &linked);
            }
            done.store(true, Ordering::Relaxed);
        });
        unmount_at(node, &linked).success();
        assert_eq!(mounts_at(&real), 0);
        nix::mount::umount("/mnt").unwrap();
    });
}
