//! The driver next to the bare tools: `s3fs …`, `umount`, and `/bin/true` as the floor, measured
//! side by side in one run. Everything is a ratio; nothing here depends on how fast a machine is.
//!
//! It runs as process 1 of a process namespace, with mounts of its own: whatever ends it, Ctrl-C or
//! a panic, takes every daemon and every mount along.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people: a table on stdout, what it is at on stderr"
)]

mod agent;
mod bare;
mod container;
mod data;
mod deaths;
mod instructions;
mod measure;
mod namespace;
mod node;
mod options;
mod peak;
mod plot;
mod processes;
mod report;
mod row;
mod run;
mod stats;
mod store;

use anyhow::Result;
use nix::sched::CloneFlags;
use options::{Mode, Options};
use std::ffi::OsString;
use std::process::ExitCode;
use support::namespace::{become_init, run_as_init};

fn main() -> Result<ExitCode> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|word| word.to_str()) {
        Some(peak::WORD) => peak::run(&arguments[1..]),
        Some(agent::WORD) => agent::run(&arguments[1..]),
        Some(container::WORD) => container::run(&arguments[1..]),
        Some(namespace::WORD) => {
            arguments.remove(0);
            become_init(false)?;
            inside(&Options::parse(&arguments)?)
        }
        _ => {
            // Checked out here already, where mistakes are made.
            Options::parse(&arguments)?;
            run_as_init(namespace::WORD, &arguments, CloneFlags::empty())
        }
    }
}

/// The program proper, as process 1.
fn inside(options: &Options) -> Result<ExitCode> {
    match options.mode {
        Mode::Measure => {
            let results = measure::all(options)?;
            print!("{}", report::table(&results));
            if let Some(file) = &options.json {
                std::fs::write(file, report::json(&results)?)?;
            }
            if options.write {
                report::write(&results)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Mode::CheckInstructions => instructions::check(options),
        Mode::UpdateInstructions => instructions::update(options),
    }
}
