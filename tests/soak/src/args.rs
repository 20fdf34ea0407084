//! The command line.

use std::path::PathBuf;

/// The long run: Pods that come, write, go and are killed at random on one node without systemd,
/// and a check of what is lost or left after every round. Needs root, /dev/fuse, s3fs and ip.
///
/// The seed decides which actions there are, their order and the pauses between them. When exactly
/// the machine comes to each of them it does not decide.
#[derive(clap::Parser, Debug, Clone)]
pub(crate) struct Args {
    /// The driver: a release build, as it is shipped.
    #[arg(long, default_value = "dist/oss")]
    pub(crate) driver: PathBuf,
    /// Another build of the driver, to upgrade to and downgrade from.
    #[arg(long)]
    pub(crate) other: Option<PathBuf>,
    /// How long to begin new rounds.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) minutes: f64,
    /// What all choices follow from; a random one if it is left out.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A file for all actions and their outcomes; the last ones are shown in any case.
    #[arg(long)]
    pub(crate) history: Option<PathBuf>,
    /// How many actions a round has.
    #[arg(long, default_value_t = ACTIONS)]
    pub(crate) actions: usize,
}

/// The usual number of actions: about half a minute.
const ACTIONS: usize = 200;

impl Args {
    /// The command that has the same actions again.
    pub(crate) fn again(&self, seed: u64) -> String {
        let mut command = format!("make soak SEED={seed} MINUTES={}", self.minutes);
        if self.other.is_some() || self.actions != ACTIONS {
            // The actions follow from these, too.
            let other = self
                .other
                .iter()
                .map(|path| format!(" --other {}", path.display()));
            command = format!(
                "soak --driver {}{} --actions {} --seed {seed} --minutes {}",
                self.driver.display(),
                other.collect::<String>(),
                self.actions,
                self.minutes
            );
        }
        command
    }
}
