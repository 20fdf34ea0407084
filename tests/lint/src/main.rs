//! Checks of the repository that no kept tool makes, for `make lint`. Each argument is a file: the root
//! of a crate (`src/lib.rs`) or a document (`README.md`).
//!
//! **Crates.** Files that import each other in a circle are an error. An import is a `use`, or a path in
//! the code, that starts at `crate`, `super` or a child module. The file that it leads to is the one of
//! the longest module path in it: what a file re-exports counts as that file's. `mod` alone is no import,
//! and code under `#[cfg(test)]` is not looked at.
//!
//! **Documents.** A link to a file, or the name of one in `` `code` ``, is an error if there is none.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people and CI"
)]

mod circle;
mod document;
mod files;
mod source;

use anyhow::{Context as _, Result};
use files::Crate;
use std::path::Path;
use std::process::ExitCode;

fn main() -> Result<ExitCode> {
    let mut well = true;
    for argument in std::env::args_os().skip(1) {
        let path = Path::new(&argument);
        well &= match path.extension().is_some_and(|extension| extension == "md") {
            true => check_document(path)?,
            false => check_crate(path)?,
        };
    }
    Ok(match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Whether no files of the crate with the file `root` import each other in a circle.
fn check_crate(root: &Path) -> Result<bool> {
    let parsed = Crate::read(root)?;
    let imports = parsed.imports();
    let circles = circle::find(&imports);
    for circle in &circles {
        eprintln!("files import each other in a circle:");
        for import in circle {
            let (from, to) = (import.from.display(), import.to.display());
            eprintln!("  {from}:{} imports {to}", import.line);
        }
    }
    let (files, imports) = (parsed.files(), imports.len());
    println!(
        "{}: {files} files, {imports} imports between them",
        root.display()
    );
    Ok(circles.is_empty())
}

/// Whether each file that the document at `path` names is there.
fn check_document(path: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let missing: Vec<_> = document::files(&text)
        .into_iter()
        .filter(|named| !directory.join(&named.path).exists())
        .filter(|named| named.is_link || !Path::new(&named.path).exists())
        .collect();
    for named in &missing {
        eprintln!(
            "{}:{}: there is no {:?}",
            path.display(),
            named.line,
            named.path
        );
    }
    Ok(missing.is_empty())
}
