//! `make e2e`: the driver on a real cluster of one node, and Pods that use it.
//!
//! Each check makes objects of Kubernetes as their authors would, looks at them through the API and from
//! within their containers, removes them, and then nothing of them may be left on the node.

#![allow(
    clippy::print_stdout,
    reason = "what it prints is for a person and for the log of CI"
)]

mod args;
mod checks;
mod cluster;
mod container;
mod events;
mod image;
mod kubectl;
mod leftovers;
mod network;
mod parts;
mod pods;
mod processes;
mod programs;
mod readers;
mod writer;

use anyhow::Result;
use args::Args;
use checks::{CHECKS, Outcome};
use clap::Parser as _;
use cluster::Cluster;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.list {
        for check in CHECKS {
            println!("{}", check.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let missing = support::node::missing();
    anyhow::ensure!(missing.is_empty(), "cannot run: {}", missing.join("; "));
    let began = Instant::now();
    let cluster = Cluster::boot(&args)?;
    println!("cluster: {:.0} s", began.elapsed().as_secs_f64());

    let mut failed = 0;
    for check in CHECKS.iter().filter(|check| args.wants(check.name)) {
        let began = Instant::now();
        let result = checks::run(check, &cluster);
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(Outcome::Done) => println!("ok       {} ({seconds:.1} s)", check.name),
            Ok(Outcome::Skipped(why)) => println!("skipped  {}: {why}", check.name),
            Err(error) => {
                failed += 1;
                println!("FAILED   {} ({seconds:.1} s): {error:#}", check.name);
                if args.keep {
                    cluster.hold()?;
                    break;
                }
            }
        }
    }
    if args.hold {
        cluster.hold()?;
    }
    println!("{failed} failed, {:.0} s", began.elapsed().as_secs_f64());
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
