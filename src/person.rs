//! What people type: `--help` and `--version`. kubelet never sends a word that begins with a dash.

use clap::{Arg, Command};
use std::ffi::OsString;
use std::io::Write as _;

fn command() -> Command {
    Command::new("oss")
        .version(env!("CARGO_PKG_VERSION"))
        .about("FlexVolume driver alicloud/oss: mounts Alibaba Cloud OSS buckets into Pods")
        .after_help(
            "kubelet calls it as `oss init`, `oss mount TARGET JSON` and `oss unmount TARGET`, and \
             reads one JSON object from its stdout.",
        )
        .override_usage("oss init | mount TARGET JSON | unmount TARGET")
        .arg(Arg::new("call").hide(true).num_args(0..))
}

/// Prints the help or the version that `args` ask for.
pub(crate) fn answer(args: &[OsString]) {
    let words = std::iter::once("oss".into()).chain(args.iter().take(1).cloned());
    let text = match command().try_get_matches_from(words) {
        Ok(_) => command().render_help().to_string(),
        Err(shown) => shown.to_string(),
    };
    // Closed stdout: the person has gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
