//! A daemon that has been taken over, and what it tries. It is this test program, started as the
//! daemon: it prints one line an attempt, `NAME: RESULT`.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::ptrace;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Gid, Pid, Uid, chroot, mkfifo, setgroups, setresgid, setresuid};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The test that is run as the daemon.
pub(crate) const NAME: &str = "evil::an_evil_daemon";

/// What the test passes: words `key=value`, which the test runner takes for more names of tests.
struct Words(BTreeMap<String, String>);

impl Words {
    fn of_this_process() -> Self {
        let words = std::env::args().filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        Self(words.collect())
    }

    fn path(&self, key: &str) -> PathBuf {
        PathBuf::from(&self.0[key])
    }

    fn pid(&self, key: &str) -> Pid {
        Pid::from_raw(self.0[key].parse().expect("a number"))
    }
}

/// Does what the argument `do=…` says. Outside a sandbox, where the test runner comes by as well, it
/// does nothing.
#[test]
#[ignore = "is run as the daemon by other tests here"]
fn an_evil_daemon() {
    if !Path::new("/etc/oss-live").exists() {
        return;
    }
    let words = Words::of_this_process();
    match words.0["do"].as_str() {
        "look" => look(&words),
        "act" => act(&words),
        "reach" => {
            for name in ["read", "write", "none"] {
                let path = words.path(name);
                tell(&format!("read {name}"), read(&path));
                tell(&format!("write {name}"), write(&path));
            }
        }
        "open" => println!("opened: {}", open_many()),
        "start" => println!("started: {}", start_many()),
        "take" => println!("took: {}", take(8 << 30)),
        "idle" => std::thread::sleep(Duration::from_secs(600)),
        other => panic!("no deed {other:?}"),
    }
}

fn tell<T: Display, E: Into<Errno>>(name: &str, result: Result<T, E>) {
    match result {
        Ok(value) => println!("{name}: {value}"),
        Err(e) => println!("{name}: {:?}", e.into()),
    }
}

fn done<E>(result: Result<(), E>) -> Result<&'static str, E> {
    result.map(|()| "done")
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(0))
}

/// The names in a directory, in order.
fn list(path: &Path) -> Result<String, Errno> {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .map_err(errno)?
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    Ok(names.join(" "))
}

fn read(path: &Path) -> Result<String, Errno> {
    let text = std::fs::read_to_string(path).map_err(errno)?;
    Ok(text.trim().to_owned())
}

fn write(path: &Path) -> Result<&'static str, Errno> {
    done(std::fs::write(path, "evil").map_err(errno))
}

/// What it can see.
fn look(words: &Words) {
    tell("own key", read(&words.path("key")));
    tell("another key", read(&words.path("other")));
    tell("shadow", read(Path::new("/etc/shadow")));
    tell("kubelet", list(&words.path("kubelet")));
    tell("root", list(Path::new("/")));
    tell("etc", list(Path::new("/etc/oss-live")));
    tell("dev", list(Path::new("/dev")));
    tell("proc", list(Path::new("/proc/self")));
    tell("sys", list(Path::new("/sys")));
    tell("mount point", list(&words.path("staging")));
    tell(
        "cores",
        getrlimit(Resource::RLIMIT_CORE).map(|(soft, hard)| format!("{soft} {hard}")),
    );
    let environment: BTreeMap<String, String> = std::env::vars().collect();
    let names: Vec<&str> = environment.keys().map(String::as_str).collect();
    println!("environment: {}", names.join(" "));
}

/// What it can do to others, and to what confines it.
fn act(words: &Words) {
    let none = None::<&Path>;
    let outside = words.pid("outside");
    tell("kill", done(kill(outside, Signal::SIGKILL)));
    tell("trace", done(ptrace::attach(outside)));
    // Its own watcher: the signal is taken and does nothing (pid_namespaces(7)).
    tell("trace the watcher", done(ptrace::attach(Pid::from_raw(1))));
    tell(
        "kill the watcher",
        done(kill(Pid::from_raw(1), Signal::SIGKILL)),
    );
    tell(
        "mount",
        done(mount(
            Some("a"),
            "/tmp",
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )),
    );
    let write_flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    tell("remount", done(mount(none, "/", none, write_flags, none)));
    tell(
        "unmount",
        done(umount2("/etc/oss-live", MntFlags::MNT_DETACH)),
    );
    for (name, flag) in [
        ("new user namespace", CloneFlags::CLONE_NEWUSER),
        ("new mount namespace", CloneFlags::CLONE_NEWNS),
        ("new network namespace", CloneFlags::CLONE_NEWNET),
    ] {
        tell(name, done(unshare(flag)));
    }
    let root = File::open("/").expect("the root directory");
    tell("join a namespace", done(setns(&root, CloneFlags::empty())));
    tell("chroot", done(chroot("/tmp")));
    tell(
        "device",
        done(mknod("/tmp/device", SFlag::S_IFCHR, Mode::S_IRWXU, 0x103)),
    );
    tell("fifo", done(mkfifo("/tmp/fifo", Mode::S_IRWXU)));
    let (user, group) = (Uid::from_raw(1000), Gid::from_raw(1000));
    tell("setuid", done(setresuid(user, user, user)));
    tell("setgid", done(setresgid(group, group, group)));
    tell("setgroups", done(setgroups(&[group])));
    tell(
        "module",
        done(nix::kmod::finit_module(
            &root,
            c"",
            nix::kmod::ModuleInitFlags::empty(),
        )),
    );
    for (name, family) in [
        ("local socket", AddressFamily::Unix),
        ("packets", AddressFamily::Packet),
    ] {
        let socket = socket(family, SockType::Stream, SockFlag::empty(), None);
        tell(name, done(socket.map(drop)));
    }
    tell(
        "the network",
        done(
            std::net::UdpSocket::bind("127.0.0.1:0")
                .map(drop)
                .map_err(errno),
        ),
    );
    tell(
        "more files",
        done(setrlimit(Resource::RLIMIT_NOFILE, 1 << 20, 1 << 20)),
    );
    for (name, path) in [
        ("write /", "/evil"),
        ("write /etc", "/etc/evil"),
        ("write /usr", "/usr/evil"),
        ("write /dev", "/dev/evil"),
        ("write a live file", "/etc/oss-live/hosts"),
        ("write the stub", "/run/oss/fusermount"),
        ("write its own directory", "/tmp/mine"),
    ] {
        tell(name, write(Path::new(path)));
    }
    tell("write its key", write(&words.path("key")));
    std::fs::copy("/usr/bin/true", "/tmp/true").expect("copy a program");
    tell(
        "run its own program",
        done(Command::new("/tmp/true").status().map(drop).map_err(errno)),
    );
    println!("it lives");
}

/// How many files it can have open, up to 100,000, and why no more.
fn open_many() -> String {
    let mut files = Vec::new();
    let result = (0..100_000).try_for_each(|_| {
        files.push(open("/dev/null", OFlag::O_RDONLY, Mode::empty())?);
        Ok::<(), Errno>(())
    });
    format!("{} {result:?}", files.len())
}

/// How many processes it can have, up to 10,000, and why no more: threads, which count as such.
fn start_many() -> String {
    let mut started = 0;
    let result = (0..10_000).try_for_each(|_| {
        let thread = std::thread::Builder::new().stack_size(16 << 10);
        thread.spawn(|| std::thread::sleep(Duration::from_secs(600)))?;
        started += 1;
        Ok::<(), std::io::Error>(())
    });
    format!("{started} {:?}", result.map_err(errno))
}

/// How many bytes of so many it can use.
fn take(bytes: usize) -> usize {
    let mut all = Vec::new();
    for _ in 0..bytes >> 20 {
        all.push(vec![1_u8; 1 << 20]);
    }
    all.len() << 20
}
