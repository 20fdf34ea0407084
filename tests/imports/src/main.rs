//! Fails when files of a crate import each other in a circle: `imports src/lib.rs installer/src/main.rs`
//! names the root file of each crate. `make lint` runs it.
//!
//! An import is a `use`, or a path in the code, that starts at `crate`, `super` or a child module. The
//! file that it leads to is the one of the longest module path in it: what a file re-exports counts as
//! that file's. `mod` alone is no import, and code under `#[cfg(test)]` is not looked at.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people and CI"
)]

mod circle;
mod files;
mod source;

use anyhow::Result;
use files::Crate;
use std::path::Path;
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    let mut status = ExitCode::SUCCESS;
    for root in std::env::args_os().skip(1) {
        let parsed = Crate::read(Path::new(&root))?;
        let imports = parsed.imports();
        for circle in circle::find(&imports) {
            eprintln!("files import each other in a circle:");
            for import in circle {
                let (from, to) = (import.from.display(), import.to.display());
                eprintln!("  {from}:{} imports {to}", import.line);
            }
            status = ExitCode::FAILURE;
        }
        println!(
            "{}: {} files, {} imports between them",
            Path::new(&root).display(),
            parsed.files(),
            imports.len()
        );
    }
    Ok(status)
}
