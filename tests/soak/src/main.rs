//! The long run. See `args::Args`.

mod actions;
mod args;
mod bytes;
mod check;
mod container;
mod daemons;
mod deaths;
mod gate;
mod kubelet;
mod ledger;
mod namespace;
mod plan;
mod pods;
mod report;
mod rounds;
mod snapshot;
mod volumes;
mod world;
mod writer;

use anyhow::{Context as _, Result};
use args::Args;
use clap::Parser as _;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let word = words
        .first()
        .and_then(|word| word.to_str())
        .unwrap_or_default()
        .to_owned();
    match word.as_str() {
        container::WORD => container::run(&words[1..]),
        writer::WORD => writer::run(&words[1..]),
        namespace::INIT => namespace::init(&words[1..]),
        namespace::INSIDE => {
            words.remove(0);
            rounds::run(&Args::parse_from(
                std::iter::once("soak".into()).chain(words),
            ));
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            let args = Args::parse();
            for driver in std::iter::once(&args.driver).chain(&args.other) {
                std::fs::metadata(driver)
                    .with_context(|| format!("no driver at {}", driver.display()))?;
            }
            if args.seed.is_none() {
                words.push(format!("--seed={}", fastrand::u32(..)).into());
            }
            namespace::run_inside(&words)
        }
    }
}
