//! The checks, and what surrounds each.

mod crowd;
mod daemon;
mod groups;
mod installer;
mod kubelet;
mod paths;
mod refusals;
mod volumes;

use crate::cluster::Cluster;
use crate::leftovers;
use anyhow::{Context as _, Result};

/// What became of a check that did not fail.
pub(crate) enum Outcome {
    Done,
    /// It does not run here, and why.
    Skipped(String),
}

/// One check.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    run: fn(&Cluster) -> Result<Outcome>,
}

const fn check(name: &'static str, run: fn(&Cluster) -> Result<Outcome>) -> Check {
    Check { name, run }
}

/// All of them, in the order in which they run.
pub(crate) const CHECKS: &[Check] = &[
    check("inline", volumes::inline),
    check("deployment-of-three", volumes::deployment_of_three),
    check("secret-read-only", volumes::secret_read_only),
    check("sub-paths", paths::sub_paths),
    check("supplementary-group", groups::supplementary_group),
    check("host-to-container", paths::host_to_container),
    check("empty-dir-inside", volumes::empty_dir_inside),
    check("wrong-key", refusals::wrong_key),
    check("missing-bucket", refusals::missing_bucket),
    check("another-tenants-key", refusals::another_tenants_key),
    check("hostile-options", refusals::hostile_options),
    check("kubelet-restarted", kubelet::restarted),
    check("kubelet-killed", kubelet::killed),
    check("ossfs-killed", daemon::ossfs_killed),
    check("serve-killed", daemon::serve_killed),
    check("both-killed", daemon::both_killed),
    check("forty-on-one-claim", crowd::forty_on_one_claim),
    check("installer-full", installer::full),
    check("installer-minimal", installer::minimal),
];

/// Runs a check on an empty bucket, removes what it made, and looks at what is left.
pub(crate) fn run(check: &Check, cluster: &Cluster) -> Result<Outcome> {
    let outcome = (check.run)(cluster);
    cluster.store.clear_faults();
    let cleaned = clean(cluster).context("afterwards");
    match (outcome, cleaned) {
        (Err(error), Err(after)) => Err(error.context(format!("({after:#})"))),
        (Ok(_), Err(after)) => Err(after),
        (outcome, Ok(())) => outcome,
    }
}

fn clean(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "deployment", "--all", "--wait=false"])?;
    cluster.kubectl(&["delete", "pod", "--all", "--wait=false"])?;
    crate::pods::none_left(cluster, "--namespace=default")?;
    cluster.kubectl(&["delete", "pvc,pv,secret", "--all", "--wait=false"])?;
    leftovers::check(cluster)?;
    cluster.store.remove_bucket(crate::cluster::BUCKET);
    cluster.store.create_bucket(crate::cluster::BUCKET);
    Ok(())
}
