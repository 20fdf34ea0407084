//! The processes that serve volumes: `oss serve` with all that it has started, and bare daemons. What
//! they take of memory and time is in /proc (proc_pid_stat(5), proc_pid_smaps_rollup(5)).

use anyhow::{Context as _, Result};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::collections::BTreeSet;

/// A running process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    parent: Pid,
    name: String,
    arguments: Vec<String>,
}

impl Process {
    /// Whether it is a FUSE daemon, the driver's or a bare one.
    pub(crate) fn is_daemon(&self) -> bool {
        self.name == "s3fs"
    }

    /// Whether it is `oss serve`, in whatever part.
    fn is_serve(&self) -> bool {
        self.arguments.get(1).is_some_and(|word| word == "serve")
    }

    /// Whether it is the `oss serve` that has the requests of a volume in its hands.
    pub(crate) fn serves(&self) -> bool {
        self.is_serve() && !self.arguments.iter().any(|word| word == "--parent")
    }

    pub(crate) fn has_argument(&self, argument: &str) -> bool {
        self.arguments.iter().any(|word| word == argument)
    }
}

/// Every process here that has not ended.
pub(crate) fn all() -> Vec<Process> {
    let read = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, numbers) = fields(&stat)?;
        let parent = Pid::from_raw(*numbers.first()? as i32);
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let arguments = arguments
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned());
        (state != "Z").then(|| Process {
            pid: Pid::from_raw(pid),
            parent,
            name: name.trim().to_owned(),
            arguments: arguments.collect(),
        })
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// Every FUSE daemon that runs here, the driver's and bare ones.
pub(crate) fn daemons() -> Vec<Pid> {
    let daemons = all().into_iter().filter(Process::is_daemon);
    daemons.map(|process| process.pid).collect()
}

/// The processes `oss serve` alone.
pub(crate) fn servers() -> Vec<Pid> {
    let servers = all().into_iter().filter(Process::is_serve);
    servers.map(|process| process.pid).collect()
}

/// All that serves volumes, the driver's and bare: daemons, `oss serve`, and what that has started.
pub(crate) fn serving() -> Vec<Pid> {
    let all = all();
    let mut found: BTreeSet<Pid> = all
        .iter()
        .filter(|process| process.is_daemon() || process.is_serve())
        .map(|process| process.pid)
        .collect();
    loop {
        let before = found.len();
        found.extend(
            all.iter()
                .filter(|process| found.contains(&process.parent))
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
        );
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

/// What `step` has started that serves volumes and is still there.
pub(crate) fn started_by<T>(step: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Pid>)> {
    let before = serving();
    let result = step()?;
    let mut new = serving();
    new.retain(|pid| !before.contains(pid));
    Ok((result, new))
}

/// The memory of `processes` together, in MiB: pages that several share count once (PSS).
pub(crate) fn memory(processes: &[Pid]) -> f64 {
    let kib = |pid: &Pid| -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse().ok()
    };
    processes.iter().filter_map(kib).sum::<f64>() / 1024.0
}

/// The time on CPUs that `processes` have taken so far, in user mode and in the kernel, in seconds.
pub(crate) fn cpu_seconds(processes: &[Pid]) -> Result<f64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .context("the length of a clock tick")?;
    let mut sum = 0.0;
    for pid in processes {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} has ended"))?;
        let (_, numbers) = fields(&stat).context("read a process's times")?;
        // utime and stime are fields 14 and 15; the first number here is field 4.
        sum += numbers.iter().skip(10).take(2).sum::<f64>();
    }
    Ok(sum / ticks as f64)
}

/// The state in the text of /proc/PID/stat, and the numbers that follow it.
fn fields(stat: &str) -> Option<(&str, Vec<f64>)> {
    // The name before it may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(") ")?;
    let (state, numbers) = rest.split_once(' ')?;
    let numbers = numbers.split_whitespace().map(str::parse);
    Some((state, numbers.collect::<Result<_, _>>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn reads_past_any_name() {
        let stat = "7 (a) R 1) S 3 7 7 0 -1 4194560 1 2 3 4 150 25 0 0\n";
        let (state, numbers) = fields(stat).unwrap();
        assert_eq!((state, numbers[0]), ("S", 3.0));
        assert_eq!(numbers[10..12], [150.0, 25.0]);
    }
}
