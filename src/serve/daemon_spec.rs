//! How a volume's plan has its daemon run.

use crate::sandbox::{Mode, Reachable, Spec};
use crate::serve::plan::Plan;
use anyhow::{Context as _, Result};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// The directories that the process makes in that of the volume.
pub(crate) const SANDBOX: &str = "sandbox";
pub(crate) const LIVE: &str = "live";
/// Where the volume is mounted.
pub(crate) const STAGING: &str = "staging";

/// How the daemon is run; makes the directories that it needs.
pub(crate) fn spec(plan: &Plan, volume: &Path) -> Result<Spec> {
    let make = |name: &str| {
        let path = volume.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                Err(e).with_context(|| format!("make directory {}", path.display()))
            }
            _ => Ok(path),
        }
    };
    let uid = plan.sandbox.uid;
    let reachable = plan.sandbox.reachable.iter();
    Ok(Spec {
        program: plan.program.clone(),
        arguments: plan.arguments.clone(),
        mount_point: volume.join(STAGING),
        uid,
        root: make(SANDBOX)?,
        temporary: plan.temporary.clone(),
        key_file: plan.sandbox.key_file.clone(),
        reachable: reachable
            .map(|(path, writable)| Reachable {
                path: path.clone(),
                writable: *writable,
            })
            .collect(),
        environment: plan.sandbox.environment.clone(),
        live_files: volume.join(LIVE),
        groups: Vec::new(),
        mode: match plan.sandbox.on {
            true => Mode::Full,
            false => Mode::Off,
        },
        helper: "/proc/self/exe".into(),
    })
}
