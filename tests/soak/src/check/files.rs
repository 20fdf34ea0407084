//! Files: the state directory, directories of targets, and secrets where none may be.

use super::{Expected, Noted};
use crate::snapshot::Snapshot;
use crate::volumes::SECRET_MARK;
use std::collections::BTreeSet;

/// What the mark of secrets looks like in a Secret as kubelet hands it over.
const SECRET_MARK_BASE64: &str = "c0VjckV0";

/// What is in the state directory, and which directories of targets there are.
pub(super) fn check(found: &Snapshot, noted: &[Noted], expected: &Expected) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, file) in &found.state {
        let below = noted.iter().find_map(|volume| {
            name.strip_prefix("volumes/")?
                .strip_prefix(volume.id)?
                .strip_prefix('/')
        });
        let is_known = match below {
            None => matches!(name.as_str(), "boot" | "locks/" | "volumes/"),
            Some(name) => {
                matches!(
                    name,
                    "" | "lock"
                        | "volume.json"
                        | "passwd"
                        | "daemon"
                        | "staging/"
                        | "probed"
                        | "probing"
                        | "targets/"
                        | "serve.json"
                        | "uid"
                        | "socket"
                        | "nodes"
                        | "inflight"
                        | "sandbox/"
                        | "live/"
                ) || name.starts_with("live/")
                    || name
                        .strip_prefix("targets/")
                        .is_some_and(|key| !key.contains('.'))
            }
        };
        if !is_known {
            wrong.push(format!("a file is left in the state directory: {name}"));
        }
        let mode = if name.ends_with('/') { 0o700 } else { 0o600 };
        // What its ossfs reads is everybody's.
        let is_shared = ["/staging/", "/sandbox/", "/live/"]
            .iter()
            .any(|part| name.contains(part));
        if file.mode != mode && !is_shared {
            wrong.push(format!("{name} has mode {:04o}", file.mode));
        }
    }
    let targets: BTreeSet<&str> = expected.targets.iter().map(|t| &*t.path).collect();
    for path in found
        .targets
        .iter()
        .filter(|path| !targets.contains(path.as_str()))
    {
        wrong.push(format!("a directory is left at {path}"));
    }
    wrong
}

/// Where secrets are that none may be.
pub(super) fn secrets(found: &Snapshot) -> Vec<String> {
    let has = |bytes: &[u8]| {
        [SECRET_MARK, SECRET_MARK_BASE64].iter().any(|mark| {
            bytes
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        })
    };
    let mut wrong = Vec::new();
    for (name, file) in &found.state {
        if has(&file.content) && !(name.ends_with("/passwd") && file.mode == 0o600) {
            wrong.push(format!("a secret is in {name}, mode {:04o}", file.mode));
        }
    }
    for (name, _) in found.logs.iter().filter(|(_, file)| has(&file.content)) {
        wrong.push(format!("a secret is in the log {name}"));
    }
    for process in &found.processes {
        let texts = [
            ("arguments", &process.arguments),
            ("environment", &process.environment),
        ];
        for (what, _) in texts.iter().filter(|(_, text)| has(text.as_bytes())) {
            wrong.push(format!(
                "a secret is in the {what} of {} ({})",
                process.pid, process.name
            ));
        }
    }
    wrong
}
