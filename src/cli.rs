//! What administrators type, and units run: `adopt`, `heal`, `--help` and `--version`. kubelet makes
//! none of these calls.

use crate::calls;
use crate::state::init_record::BUILD;
use clap::{Arg, ArgMatches, Command};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

fn command() -> Command {
    Command::new("oss")
        .version(BUILD)
        .about("FlexVolume driver alicloud/oss: mounts Alibaba Cloud OSS buckets into Pods")
        .after_help(
            "kubelet calls it as `oss init`, `oss mount TARGET JSON` and `oss unmount TARGET`, and \
             reads one JSON object from its stdout.",
        )
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .subcommand(Command::new("adopt").about(
            "Move the old driver's daemons out of kubelet's cgroup, so that a restart of kubelet does not end them",
        ))
        .subcommand(
            Command::new("heal")
                .about("Serve volumes again whose process was stopped or killed: all of this node, or those with the IDs")
                .arg(
                    Arg::new("after-start")
                        .long("after-start")
                        .value_name("ID")
                        .hide(true)
                        .conflicts_with("ID")
                        .help("Accepted for units of builds before `oss serve`: does nothing"),
                )
                .arg(Arg::new("ID").num_args(0..)),
        )
}

/// Runs the command `args` and prints its output. The status is 1 if something could not be healed,
/// 2 if the arguments are wrong.
pub fn run(args: &[OsString]) -> ExitCode {
    let args = std::iter::once("oss".into()).chain(args.iter().cloned());
    let (text, status) = match command().try_get_matches_from(args) {
        Ok(matches) if matches.subcommand_name() == Some("adopt") => outcome(calls::adopt()),
        Ok(matches) => heal(&matches),
        Err(usage) => {
            let status = if usage.use_stderr() { 2 } else { 0 };
            (usage.to_string(), status)
        }
    };
    // A closed stdout is ignored: then nothing reads it.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(status)
}

fn heal(matches: &ArgMatches) -> (String, u8) {
    let matches = matches.subcommand_matches("heal");
    if matches.is_some_and(|heal| heal.contains_id("after-start")) {
        return outcome((Vec::new(), true));
    }
    let ids: Vec<String> = matches
        .and_then(|heal| heal.get_many("ID"))
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    outcome(calls::heal(&ids))
}

fn outcome((lines, succeeded): (Vec<String>, bool)) -> (String, u8) {
    let text = lines.iter().map(|line| format!("{line}\n")).collect();
    (text, u8::from(!succeeded))
}
