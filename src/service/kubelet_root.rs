//! The real path of a TARGET on nodes where kubelet's root directory is reached through a link.

use crate::kubelet::target::Target;
use crate::mounts::links;
use anyhow::{Result, anyhow};

/// `target` by its real path, which is what the mount table has and what is recorded. Links above the
/// Pods' directories are the administrator's, and followed if they are root's (`mounts::links`);
/// from `pods` on nothing is followed, here or later: whoever opens the path refuses a link in it.
pub(crate) fn real_path(target: Target) -> Result<Target> {
    let Some((root, _)) = target.root_and_rest() else {
        return Ok(target);
    };
    let root = links::resolve(root).map_err(|e| anyhow!("TARGET {}: {e:#}", target.as_str()))?;
    target.at_root(&root).map_err(anyhow::Error::msg)
}
