//! What the program is told.

use std::path::PathBuf;

/// Runs Pods with the driver on a real cluster of one node.
#[derive(Debug, clap::Parser)]
pub(crate) struct Args {
    /// The driver.
    #[arg(long, default_value = "dist/oss")]
    pub(crate) driver: PathBuf,
    /// The installer.
    #[arg(long, default_value = "dist/oss-installer")]
    pub(crate) installer: PathBuf,
    /// The daemon, instead of s3fs.
    #[arg(long)]
    pub(crate) ossfs: Option<PathBuf>,
    /// A directory with kubelet, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl;
    /// otherwise they are built.
    #[arg(long)]
    pub(crate) kubernetes: Option<PathBuf>,
    /// The driver does not use systemd (the node has it all the same).
    #[arg(long)]
    pub(crate) no_systemd: bool,
    /// Names the checks.
    #[arg(long)]
    pub(crate) list: bool,
    /// Leaves the cluster running after the last check until a line is read.
    #[arg(long)]
    pub(crate) hold: bool,
    /// The same, at the first failure.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Checks to run; all without any.
    pub(crate) checks: Vec<String>,
}

impl Args {
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.checks.is_empty() || self.checks.iter().any(|wanted| wanted == name)
    }
}
