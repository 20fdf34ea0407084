//! How a volume's plan has its daemon run.

use crate::sandbox::{Mode, Reachable, Spec};
use crate::serve::plan::Plan;
use crate::sys::root_only;
use anyhow::Result;
use std::path::Path;

/// The directories that the process makes in the volume's.
pub(crate) const SANDBOX: &str = "sandbox";
pub(crate) const LIVE: &str = "live";
/// Where the volume is mounted.
pub(crate) const STAGING: &str = "staging";

/// How the daemon is run; makes the mount point of its root directory.
pub(crate) fn spec(plan: &Plan, volume: &Path) -> Result<Spec> {
    let root = volume.join(SANDBOX);
    root_only::make_directory(&root)?;
    let uid = plan.sandbox.uid;
    let reachable = plan.sandbox.reachable.iter();
    Ok(Spec {
        program: plan.program.clone(),
        arguments: plan.arguments.clone(),
        mount_point: volume.join(STAGING),
        uid,
        root,
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
