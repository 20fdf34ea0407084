//! Whether kubelet has loaded the driver that is installed: the driver's `init` leaves a stamp in
//! the state directory.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::path::Path;

/// The stamp's file in the state directory.
pub(crate) const STAMP: &str = "init.json";
/// What a program with a kubelet in it is called (`/proc/PID/comm`).
const CALLERS: [&str; 7] = [
    "kubelet",
    "hyperkube",
    "k3s",
    "k3s-server",
    "k3s-agent",
    "microshift",
    "kubelite",
];

/// What `init` wrote when it was last run.
#[derive(Debug, Deserialize)]
pub(crate) struct Stamp {
    /// The driver's build id.
    build: String,
    /// The process that ran it, and its name.
    pid: u32,
    caller: String,
    /// When, in seconds since 1970.
    time: i64,
}

impl Stamp {
    /// The stamp in the file at `path`, or nothing if there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("read {}", path.display()))
    }
}

/// Why kubelet has not loaded the driver `build`, which came into its place at `since` (in seconds
/// since 1970); nothing if it has. `kubelets` are those that are known to run, if any are.
pub(crate) fn problem(
    stamp: Option<&Stamp>,
    build: &str,
    since: i64,
    kubelets: &[u32],
) -> Option<String> {
    let Some(stamp) = stamp else {
        return Some(
            "kubelet has not loaded the driver yet: it does so with the next Pod that has a volume"
                .to_owned(),
        );
    };
    if stamp.build != build {
        return Some(format!(
            "kubelet has loaded {:?}, but {build:?} is installed: it loads that with the next Pod \
             that has a volume",
            stamp.build
        ));
    }
    let (caller, pid) = (&stamp.caller, stamp.pid);
    if !CALLERS.contains(&caller.as_str()) && !kubelets.contains(&pid) {
        return Some(format!(
            "the driver was loaded by {caller:?} (pid {pid}), not by kubelet"
        ));
    }
    (stamp.time < since).then(|| {
        "kubelet has not loaded the driver since it was put there: it does so with the next Pod \
         that has a volume"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::{Stamp, problem};

    fn stamp(build: &str, pid: u32, caller: &str, time: i64) -> Stamp {
        Stamp {
            build: build.to_owned(),
            pid,
            caller: caller.to_owned(),
            time,
        }
    }

    #[test]
    fn ready_is_this_build_run_by_kubelet_after_it_was_installed() {
        for (stamp, expected) in [
            (Some(stamp("b", 7, "kubelet", 100)), None),
            (Some(stamp("b", 7, "k3s-server", 101)), None),
            (Some(stamp("b", 42, "renamed", 101)), None),
            (None, Some("kubelet has not loaded the driver yet")),
            (
                Some(stamp("a", 7, "kubelet", 101)),
                Some("kubelet has loaded \"a\", but \"b\""),
            ),
            // Within the second in which this one came into its place.
            (
                Some(stamp("a", 7, "kubelet", 100)),
                Some("kubelet has loaded \"a\", but \"b\""),
            ),
            (
                Some(stamp("b", 7, "oss-installer", 101)),
                Some("the driver was loaded by \"oss-installer\" (pid 7), not by kubelet"),
            ),
            (
                Some(stamp("b", 7, "kubelet", 99)),
                Some("kubelet has not loaded the driver since"),
            ),
        ] {
            let found = problem(stamp.as_ref(), "b", 100, &[42]);
            match (&found, expected) {
                (None, None) => {}
                (Some(text), Some(start)) => assert!(text.starts_with(start), "{text}"),
                _ => panic!("{stamp:?}: {found:?}"),
            }
        }
    }
}
