//! A host without systemd: a Debian root that forgets what is written to it, with mounts and process
//! ids of its own, and the init of busybox, which reaps what it adopts.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use support::node;

/// Makes a view of the image `$1` the root, with the directory `$2` for what is written, and becomes
/// the init.
const BARE: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
cp /usr/bin/busybox bin/busybox
touch usr/sbin/runc
mount --bind /usr/sbin/runc usr/sbin/runc
# Of an init that asks for a log-in nowhere.
echo '::sysinit:/bin/echo up' >etc/inittab
mkdir run/old
pivot_root . run/old
umount -l run/old
rmdir run/old
# As systemd does it, too.
mount --make-rshared /
exec /bin/busybox init
"#;

/// The running host; all of it ends when it is dropped.
pub struct Bare {
    process: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Bare {
    fn drop(&mut self) {
        // Its first process goes with it, and with that all others and all mounts.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Bare {
    pub fn boot() -> Self {
        let image = node::image().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut process = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .args(["--propagation", "private", "sh", "-c", BARE, "bare"])
            .args([&image, directory.path()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n", "the bare host does not start");
        Self {
            process,
            _directory: directory,
        }
    }

    /// The host's first process.
    pub fn pid1(&self) -> u32 {
        let own = self.process.id();
        let children = format!("/proc/{own}/task/{own}/children");
        let text = std::fs::read_to_string(children).unwrap();
        text.trim().parse().unwrap()
    }
}
