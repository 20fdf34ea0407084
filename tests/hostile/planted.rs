//! What lies in the places of the driver's own files before it comes: a link, a pipe, a file of
//! somebody else's. It is refused with a message that names it; nothing is written through it.

use crate::DRIVER;
use crate::recorder::{Recorder, Then};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use support::{Sandbox, with_sandbox};

const CANARY: &str = "nobody may change this";
/// A user that is not root.
const SOMEBODY: u32 = 4711;

/// What is planted in a place.
#[derive(Clone, Copy, Debug)]
enum Plant {
    Link,
    LinkToNothing,
    LinkToDirectory,
    HardLink,
    Fifo,
    File,
    Directory,
    FileForAll,
    FileOfSomebody,
    DirectoryForAll,
    DirectoryToRead,
    DirectoryOfSomebody,
    SetUserIdDirectory,
}

use Plant::{
    Directory, DirectoryForAll, DirectoryOfSomebody, DirectoryToRead, Fifo, File, FileForAll,
    FileOfSomebody, HardLink, Link, LinkToDirectory, LinkToNothing, SetUserIdDirectory,
};

/// What never is one of the driver's files.
const NO_FILES: &[Plant] = &[
    Link,
    LinkToNothing,
    LinkToDirectory,
    HardLink,
    Fifo,
    Directory,
    FileForAll,
    FileOfSomebody,
];
/// What never is one of its directories.
const NO_DIRECTORIES: &[Plant] = &[
    Link,
    LinkToNothing,
    LinkToDirectory,
    Fifo,
    File,
    DirectoryForAll,
    DirectoryToRead,
    DirectoryOfSomebody,
    SetUserIdDirectory,
];

impl Plant {
    /// Plants it at `path`, whose parents are made as the driver makes them.
    fn at(self, node: &Sandbox, path: &Path) {
        make_parents(path, &node.state_directory());
        let canary = node.path("canary/file");
        let set = |mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let give = || std::os::unix::fs::chown(path, Some(SOMEBODY), None).unwrap();
        match self {
            Link => symlink(&canary, path).unwrap(),
            LinkToNothing => symlink(node.path("canary/new"), path).unwrap(),
            LinkToDirectory => symlink(node.path("canary"), path).unwrap(),
            HardLink => fs::hard_link(&canary, path).unwrap(),
            Fifo => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap(),
            File | FileForAll | FileOfSomebody => {
                fs::write(path, "").unwrap();
                set(0o600);
                match self {
                    FileForAll => set(0o666),
                    FileOfSomebody => give(),
                    _ => {}
                }
            }
            _ => {
                fs::create_dir(path).unwrap();
                match self {
                    DirectoryForAll => set(0o777),
                    DirectoryToRead => set(0o755),
                    SetUserIdDirectory => set(0o4700),
                    _ => set(0o700),
                }
                if matches!(self, DirectoryOfSomebody) {
                    give();
                }
            }
        }
    }
}

fn make_parents(path: &Path, state: &Path) {
    let parent = path.parent().unwrap();
    if parent.starts_with(state) {
        make_parents(parent, state);
        if !parent.exists() {
            fs::create_dir(parent).unwrap();
            fs::set_permissions(parent, Permissions::from_mode(0o700)).unwrap();
        }
    }
}

/// The name of a target among the driver's files.
fn key(target: &Path) -> String {
    let digest = Sha256::digest(target.as_os_str().as_encoded_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..32].to_owned()
}

/// The directory of the volume with the usual options, which is the same whenever they are.
fn volume_directory(recorder: &Recorder) -> PathBuf {
    let node = recorder.node;
    let target = node.target("first", "v");
    node.mount(&target, &node.options(json!({}))).success();
    let volumes = node.state_directory().join("volumes");
    let entry = fs::read_dir(volumes).unwrap().next().unwrap().unwrap();
    node.unmount(&target).success();
    recorder.arguments();
    entry.path()
}

fn make_canary(node: &Sandbox) {
    fs::create_dir_all(node.path("canary")).unwrap();
    let file = node.path("canary/file");
    fs::write(&file, CANARY).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

#[track_caller]
fn assert_canary(node: &Sandbox, name: &str) {
    let directory = node.path("canary");
    let file = directory.join("file");
    assert_eq!(fs::read_to_string(&file).unwrap(), CANARY, "{name}");
    let meta = file.metadata().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o600), "{name}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "{name}");
}

/// Plants each of `plants` at `place`, mounts, and checks that the call names the place.
fn assert_refused(place: impl Fn(&Sandbox, &Path) -> PathBuf + Sync, plants: &[Plant]) {
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::Serve, json!({}));
        make_canary(node);
        let volume = volume_directory(&recorder);
        for plant in plants {
            fs::remove_dir_all(node.state_directory()).unwrap();
            let path = place(node, &volume);
            let name = format!("{plant:?} at {}", path.display());
            plant.at(node, &path);
            let answer = recorder.mount("u", &node.options(json!({})));
            let message = answer.failure();
            assert!(
                message.contains(path.to_str().unwrap()),
                "{name}: {message}"
            );
            assert!(
                message.len() < 900 && !message.contains("internal error"),
                "{name}"
            );
            assert_eq!(recorder.arguments(), None, "{name}: ossfs was started");
            assert_eq!(node.mounts(), [], "{name}");
            assert_canary(node, &name);
            // Nothing is mounted there: unmount gets rid of it, or says what is in the way.
            let target = node.target("u", "v");
            node.unmount(&target);
            assert_canary(node, &name);
            if !path.is_dir() {
                // The search for the secret would wait for a writer of a pipe.
                remove(&path);
            }
            node.assert_no_secret();
            remove(&node.state_directory());
            fs::create_dir(node.state_directory()).unwrap();
        }
        fs::remove_dir(node.state_directory()).unwrap();
    });
}

/// Removes whatever is at `path`.
fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_state_directory_must_be_roots_alone() {
    assert_refused(|node, _| node.state_directory(), NO_DIRECTORIES);
    assert_refused(
        |node, _| node.state_directory().join("volumes"),
        NO_DIRECTORIES,
    );
    assert_refused(
        |node, _| node.state_directory().join("locks"),
        NO_DIRECTORIES,
    );
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_directories_of_a_volume_must_be_roots_alone() {
    assert_refused(|_, volume| volume.to_owned(), NO_DIRECTORIES);
    assert_refused(|_, volume| volume.join("targets"), NO_DIRECTORIES);
    assert_refused(|_, volume| volume.join("staging"), NO_DIRECTORIES);
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_files_of_a_volume_are_no_links_pipes_or_files_of_others() {
    for file in ["passwd", "volume.json", "lock", "daemon"] {
        assert_refused(|_, volume| volume.join(file), NO_FILES);
    }
    let key_of = |node: &Sandbox| key(&node.target("u", "v"));
    assert_refused(
        |node, _| node.state_directory().join("locks").join(key_of(node)),
        NO_FILES,
    );
    assert_refused(
        |node, volume| volume.join("targets").join(key_of(node)),
        NO_FILES,
    );
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_a_killed_call_may_have_left_half_written_is_replaced_and_not_followed() {
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::Serve, json!({}));
        make_canary(node);
        let volume = volume_directory(&recorder);
        for file in ["passwd.new", "volume.new", "daemon.new"] {
            for plant in [
                Link,
                LinkToNothing,
                LinkToDirectory,
                HardLink,
                Fifo,
                FileOfSomebody,
            ] {
                let name = format!("{plant:?} at {file}");
                plant.at(node, &volume.join(file));
                let target = node.target("u", "v");
                node.mount(&target, &node.options(json!({}))).success();
                assert_canary(node, &name);
                node.unmount(&target).success();
                assert!(!volume.exists(), "{name}");
            }
        }
        node.assert_no_secret();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_unmount_removes_nothing_through_a_planted_link() {
    with_sandbox(DRIVER, |node| {
        let recorder = Recorder::new(node, &Then::Serve, json!({}));
        let volume = volume_directory(&recorder);
        let target = node.target("u", "v");
        let elsewhere = node.path("elsewhere");
        for place in ["targets", ""] {
            remove(&elsewhere);
            let file = match place {
                "" => elsewhere.join("targets").join(key(&target)),
                _ => elsewhere.join(key(&target)),
            };
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, CANARY).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            let link = volume.join(place);
            let link = Path::new(link.to_str().unwrap().trim_end_matches('/'));
            make_parents(link, &node.state_directory());
            symlink(&elsewhere, link).unwrap();
            node.unmount(&target);
            assert_eq!(fs::read_to_string(&file).unwrap(), CANARY, "{place:?}");
            remove(link);
            remove(&volume);
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn nothing_is_logged_to_what_lies_in_the_logs_place() {
    with_sandbox(DRIVER, |node| {
        make_canary(node);
        let log = node.log_file();
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        for plant in [
            Link,
            LinkToNothing,
            LinkToDirectory,
            HardLink,
            Fifo,
            Directory,
            FileOfSomebody,
        ] {
            let name = format!("{plant:?}");
            remove(&log);
            plant.at(node, &log);
            // A log is not worth a volume.
            let target = node.target("u", "v");
            node.mount(&target, &node.options(json!({}))).success();
            node.unmount(&target).success();
            assert_canary(node, &name);
            let meta = fs::symlink_metadata(&log).unwrap();
            if matches!(plant, FileOfSomebody) {
                assert_eq!(meta.len(), 0, "{name}");
            }
        }
        remove(&log);
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
            .open(&log)
            .unwrap();
        let target = node.target("u", "v");
        node.mount(&target, &node.options(json!({}))).success();
        node.unmount(&target).success();
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"", "a reader of a pipe in the log's place");
        remove(&log);

        // Somebody opened it to all: it is used, and the log itself says so.
        FileForAll.at(node, &log);
        node.mount(&target, &node.options(json!({}))).success();
        node.unmount(&target).success();
        assert!(
            node.log().contains("is readable by others"),
            "{}",
            node.log()
        );
    });
}
