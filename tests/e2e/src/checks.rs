//! The checks, and what surrounds each.

mod crowd;
mod daemon;
mod faults;
mod groups;
mod installer;
mod kubelet;
mod paths;
mod refusals;
mod shutdown;
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
    /// Nothing can be asked of the node afterwards.
    ends_the_node: bool,
}

const fn check(name: &'static str, run: fn(&Cluster) -> Result<Outcome>) -> Check {
    Check {
        name,
        run,
        ends_the_node: false,
    }
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
    check("all-killed", daemon::all_killed),
    check("sub-paths-after-kills", paths::sub_paths_after_kills),
    check("store-silent", faults::silent),
    check("store-away", faults::away),
    check("forty-on-one-claim", crowd::forty_on_one_claim),
    check("twenty-volumes-of-five", crowd::twenty_volumes_of_five),
    check("installer-full", installer::full),
    check("installer-minimal", installer::minimal),
    Check {
        name: "node-shut-down",
        run: shutdown::under_a_writer,
        ends_the_node: true,
    },
];

/// Runs a check on an empty bucket, removes what it made, and looks at what is left.
pub(crate) fn run(check: &Check, cluster: &Cluster) -> Result<Outcome> {
    let outcome = (check.run)(cluster);
    if check.ends_the_node {
        return outcome;
    }
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
