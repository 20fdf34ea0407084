//! Talks to the process of a volume over its control socket: for the calls that want the volume
//! served.

use crate::serve::control::{short_path, timespec};
use crate::serve::failure;
use crate::serve::protocol::{Answer, Call, MAX_LINE, Reply, Request, SOCKET, Status, VERSION};
use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often to look for a process that listens, where nothing tells.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until the volume at `volume` is served, or the start of its daemon has failed, and returns
/// its status. A start that is held back is made at once. The process may still be on its way up.
///
/// # Errors
/// The process could not begin, answers nonsense, or has not answered by `deadline`.
pub fn wait(volume: &Path, deadline: Instant) -> Result<Status> {
    call(volume, Call::Wait, deadline)
}

/// The state and counters of the process of the volume at `volume`.
///
/// # Errors
/// As those of `wait`.
pub fn status(volume: &Path, deadline: Instant) -> Result<Status> {
    call(volume, Call::Status, deadline)
}

/// Has the process of the volume at `volume` start its daemon now if that start is held back.
///
/// # Errors
/// As those of `wait`.
pub fn try_now(volume: &Path, deadline: Instant) -> Result<Status> {
    call(volume, Call::Try, deadline)
}

/// Has the process of the volume at `volume` read its plan again. What is wrong with that is in its log,
/// and then nothing is changed.
///
/// # Errors
/// As those of `wait`.
pub fn reload(volume: &Path, deadline: Instant) -> Result<Status> {
    call(volume, Call::Reload, deadline)
}

/// Has the process of the volume at `volume` unmount the staging directory, let its daemon finish,
/// and end. It may still be running when this returns.
///
/// # Errors
/// As those of `wait`.
pub fn quit(volume: &Path, deadline: Instant) -> Result<Status> {
    call(volume, Call::Quit, deadline)
}

/// Tells the process of the volume at `volume`, which is unmounted for good, to end once nothing is open
/// there any more, and returns its status. `None` where no process listens, or it ends before it answers.
///
/// # Errors
/// As those of `wait`; also from processes of builds that do not know this call.
pub fn leave(volume: &Path, deadline: Instant) -> Result<Option<Status>> {
    match connect(volume)? {
        Some(stream) => ask(stream, Call::Leave, deadline),
        None => Ok(None),
    }
}

/// Whether a process listens for the volume at `volume` at this moment.
pub fn is_listening(volume: &Path) -> bool {
    short_path(volume, SOCKET).is_ok_and(|(path, _directory)| UnixStream::connect(path).is_ok())
}

fn call(volume: &Path, call: Call, deadline: Instant) -> Result<Status> {
    // Watched from before the first look, so that nothing appears unseen.
    let changes = match watch(volume) {
        Ok(changes) => Some(changes),
        Err(e @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOSPC | Errno::ENOMEM)) => {
            log::debug!("watch {}: {e}: polling instead", volume.display());
            None
        }
        Err(e) => return Err(e).with_context(|| format!("watch {}", volume.display())),
    };
    ask_or_wait(volume, call, deadline, changes.as_ref())
}

/// Tells when something appears in the directory `volume`.
fn watch(volume: &Path) -> Result<Inotify, Errno> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let what = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE_SELF;
    changes.add_watch(volume, what)?;
    Ok(changes)
}

/// Without `changes` it looks again and again: other programs of root's may have taken every inotify
/// instance of the node (`fs.inotify.max_user_instances` is 128), and a socket that is not there yet
/// has no other event. That is better than a mount that fails, and it ends with the deadline.
fn ask_or_wait(
    volume: &Path,
    call: Call,
    deadline: Instant,
    changes: Option<&Inotify>,
) -> Result<Status> {
    loop {
        if let Some(stream) = connect(volume)?
            && let Some(status) = ask(stream, call, deadline)?
        {
            return Ok(status);
        }
        if let Some(reason) = failure::read(volume) {
            bail!("{reason}");
        }
        // Nobody listens yet, or whoever did was killed: its successor renames a new socket here.
        match changes {
            Some(changes) => {
                wait_for(changes.as_fd(), PollFlags::IN, deadline)
                    .context("the volume's process does not listen")?;
                // Read to be quiet; the next look tells.
                let _ = changes.read_events();
            }
            None if Instant::now() >= deadline => {
                bail!("the volume's process does not listen: the deadline has passed")
            }
            None => sleep(LOOK_AGAIN.min(deadline.saturating_duration_since(Instant::now()))),
        }
    }
}

/// A connection to whoever listens.
fn connect(volume: &Path) -> Result<Option<UnixStream>> {
    let (path, _directory) = short_path(volume, SOCKET)?;
    match UnixStream::connect(&path) {
        Ok(stream) => Ok(Some(stream)),
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::WouldBlock
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e).with_context(|| format!("connect to {}/{SOCKET}", volume.display())),
    }
}

/// The answer to `call`; None if the process ended before it gave one.
fn ask(mut stream: UnixStream, call: Call, deadline: Instant) -> Result<Option<Status>> {
    stream
        .set_nonblocking(true)
        .context("set up the connection to the volume's process")?;
    let request = Request {
        version: VERSION,
        call,
    };
    let mut line = serde_json::to_vec(&request).context("write a request")?;
    line.push(b'\n');
    if stream.write_all(&line).is_err() {
        return Ok(None);
    }
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while !answer.contains(&b'\n') {
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(count) => answer.extend_from_slice(&bytes[..count]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                wait_for(stream.as_fd(), PollFlags::IN, deadline)
                    .context("the volume's process has not answered")?;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
        if answer.len() > MAX_LINE {
            bail!("the volume's process answered more than {MAX_LINE} bytes");
        }
    }
    let end = answer.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let reply: Reply = serde_json::from_slice(&answer[..end])
        .context("parse the answer of the volume's process")?;
    match reply.answer {
        Answer::Status(status) => Ok(Some(status)),
        Answer::Error(error) => bail!("the volume's process answered: {error}"),
    }
}

/// Waits until `fd` is ready, or `deadline`, which is an error.
fn wait_for(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(fd, events)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) if left.is_zero() => bail!("the deadline has passed"),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e).context("wait for the volume's process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ask_or_wait;
    use crate::serve::protocol::{Answer, Call, Reply, SOCKET, Status, VERSION};
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, Instant};

    #[test]
    fn a_process_that_comes_up_is_found_without_inotify() {
        let dir = tempfile::tempdir().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ask_or_wait(dir.path(), Call::Wait, deadline, None));
            let new = dir.path().join("new");
            let listener = UnixListener::bind(&new).unwrap();
            std::fs::rename(new, dir.path().join(SOCKET)).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            let reply = Reply {
                version: VERSION,
                answer: Answer::Status(Status::new(4711)),
            };
            writeln!(&stream, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap().pid, 4711);
        });
    }

    #[test]
    fn looking_without_inotify_ends_with_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        let error = ask_or_wait(dir.path(), Call::Wait, deadline, None).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "the volume's process does not listen: the deadline has passed"
        );
        assert!(Instant::now() >= deadline);
    }
}
