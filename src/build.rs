//! Cargo's build script: gives every build of the driver its own name, made from its sources.
//! The record of `init` contains it, so the installer knows which build kubelet has loaded.

#![allow(
    clippy::print_stdout,
    reason = "a build script passes settings to Cargo there"
)]

use std::error::Error;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = vec![PathBuf::from("Cargo.toml"), PathBuf::from("Cargo.lock")];
    add_files(Path::new("src"), &mut files)?;
    files.sort();
    let mut hash = DefaultHasher::new();
    for file in files {
        file.hash(&mut hash);
        fs::read(&file)?.hash(&mut hash);
    }
    for variable in ["TARGET", "PROFILE"] {
        std::env::var_os(variable).hash(&mut hash);
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let version = std::env::var("CARGO_PKG_VERSION")?;
    println!(
        "cargo:rustc-env=OSS_BUILD={version} ({:016x})",
        hash.finish()
    );
    for source in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={source}");
    }
    Ok(())
}

fn add_files(directory: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            add_files(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
