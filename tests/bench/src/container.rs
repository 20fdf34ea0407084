//! A container as far as a volume goes: a process with mounts of its own, into which a runtime has
//! bound the volume with the mount propagation that Kubernetes gives by default, none. It has a file of
//! the volume open, and reads from it whenever it is asked to.

use crate::node;
use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::MsFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::{File, create_dir};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, ExitCode, Stdio};
use support::namespace::{bind, mount_new, own_mounts, pivot_into, this_program};

/// The first argument of the program when it is the process; the volume's TARGET follows, and which
/// of its containers it is.
pub(crate) const WORD: &str = "inside-container";
/// Where its root is put together: a directory of every system.
const ROOT: &str = "/media";
const VOLUME: &str = "volume";
/// The file that containers read.
const FILE: &str = "read-by-containers";
/// What each of them reads: a page, away from the pages of the others.
const PAGE: usize = 4096;
const DISTANCE: usize = 256 << 10;
const BYTE: u8 = b'r';

/// Writes the file that so many containers of a Pod read.
pub(crate) fn prepare(pod: usize, containers: usize) -> Result<()> {
    let file = Path::new(&node::target(pod)).join(FILE);
    std::fs::write(file, vec![BYTE; containers * DISTANCE]).context("write a file")
}

/// A running container. Dropping it ends it.
pub(crate) struct Container {
    process: Child,
    requests: ChildStdin,
    answers: ChildStdout,
}

impl Container {
    /// Starts container `number` of a Pod that has its volume, and returns when it has read from it.
    pub(crate) fn start(pod: usize, number: usize) -> Result<Self> {
        let mut process = this_program(WORD, &[node::target(pod), number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a container")?;
        let requests = process.stdin.take().context("a container has no stdin")?;
        let answers = process.stdout.take().context("a container has no stdout")?;
        let mut container = Self {
            process,
            requests,
            answers,
        };
        container.ask()?;
        container.wait()?;
        Ok(container)
    }

    /// Has it read a page that the kernel does not have.
    pub(crate) fn ask(&mut self) -> Result<()> {
        self.requests.write_all(b".").context("ask a container")
    }

    /// Waits until it has read.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let mut word = [0];
        self.answers
            .read_exact(&mut word)
            .context("a container could not read")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It has ended by itself, at worst.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is the process of a container, until it is killed.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let [target, number] = arguments else {
        anyhow::bail!("{WORD} needs a TARGET and a number");
    };
    let number: usize = number.to_string_lossy().parse().context("a number")?;
    set_pdeathsig(Signal::SIGKILL).context("follow the parent's end")?;
    enter(Path::new(target))?;
    let file = File::open(Path::new("/").join(VOLUME).join(FILE)).context("open a file")?;
    let advise = |advice| posix_fadvise(&file, 0, 0, advice).context("posix_fadvise");
    // One page is one request.
    advise(PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    let (mut word, mut page) = ([0], [0; PAGE]);
    while std::io::stdin().read_exact(&mut word).is_ok() {
        advise(PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        file.read_exact_at(&mut page, (number * DISTANCE) as u64)
            .context("read")?;
        ensure!(page == [BYTE; PAGE], "other bytes were read");
        std::io::stdout().write_all(b".").context("tell")?;
        std::io::stdout().flush().context("tell")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Enters mounts of its own that hold the volume, and little besides.
fn enter(target: &Path) -> Result<()> {
    own_mounts(MsFlags::MS_PRIVATE)?;
    let root = Path::new(ROOT);
    mount_new("tmpfs", root, "")?;
    for directory in ["proc", VOLUME] {
        create_dir(root.join(directory)).context("make a directory")?;
    }
    mount_new("proc", &root.join("proc"), "")?;
    bind(target, &root.join(VOLUME))?;
    pivot_into(root)
}
