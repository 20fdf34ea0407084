//! Tricks with TARGET: kubelet makes it, but what lies on the way to it may have been changed
//! meanwhile.

use crate::DRIVER;
use crate::recorder::{Recorder, Then};
use crate::refused::Untouched;
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
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
