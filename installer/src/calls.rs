//! Calls of the driver that run at this moment.

use crate::host::Host;
use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer than a call takes that has no lock and finds the note of the drain.
const LIMIT: Duration = Duration::from_secs(60);
/// How often to look where nothing tells of a process's end.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits until each process of `proc` has ended that runs the driver whose file was at `place`, as
/// seen from here on `host`.
pub(crate) fn wait_for(proc: &Path, host: &Host, place: &Path) -> Result<()> {
    let path = Path::new("/").join(place.strip_prefix(host.root()).unwrap_or(place));
    let removed = format!("{} (deleted)", path.display());
    let runs_it = |process: &Path| {
        std::fs::read_link(process.join("exe"))
            .is_ok_and(|exe| exe == path || exe == Path::new(&removed))
    };
    let deadline = Instant::now() + LIMIT;
    let entries = std::fs::read_dir(proc).with_context(|| format!("list {}", proc.display()))?;
    for process in entries.flatten().filter(|entry| runs_it(&entry.path())) {
        let number = process.file_name().to_str().and_then(|n| n.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // Before Linux 5.3 there is none, and nothing tells of the end of another's child.
        let ended = pidfd_open(pid, PidfdFlags::empty()).ok();
        // Not another one that has its number by now.
        while runs_it(&process.path()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "process {}, a call of the driver, has not ended",
                    pid.as_raw_nonzero()
                );
            }
            match &ended {
                Some(fd) => {
                    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                    // Whatever it says, the process is looked at again.
                    let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout);
                }
                None => std::thread::sleep(LOOK_AGAIN.min(left)),
            }
        }
    }
    Ok(())
}
