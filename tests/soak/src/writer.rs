//! Writing a file, in a process of its own: while a file system hangs whoever has a file of it open
//! hangs with it, and so would every program that the run itself starts, which flushes as it closes
//! what it has inherited.

use crate::ledger::Content;
use anyhow::{Context as _, Result, bail};
use nix::unistd::close;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use support::namespace::this_program;

/// The first argument of such a process: `write PATH SEED BYTES SYNC`, or `write PATH` to remove it.
pub(crate) const WORD: &str = "write";

/// Writes `content` to the file at `path`, with fsync(2) if `sync`, and comes back without an error
/// only if close(2) did, too.
pub(crate) fn write(path: &Path, content: Content, sync: bool) -> Result<()> {
    let numbers = [
        content.seed.to_string(),
        content.bytes.to_string(),
        sync.to_string(),
    ];
    let words = numbers.iter().map(OsStr::new);
    ask(&std::iter::once(path.as_os_str())
        .chain(words)
        .collect::<Vec<_>>())
}

/// Removes the file at `path`.
pub(crate) fn remove(path: &Path) -> Result<()> {
    ask(&[path.as_os_str()])
}

fn ask(words: &[&OsStr]) -> Result<()> {
    let output = this_program(WORD, words)
        .output()
        .context("start a process")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stdout).trim());
    }
    Ok(())
}

/// The process's own part.
pub(crate) fn run(words: &[OsString]) -> Result<ExitCode> {
    let text: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let done = match text[..] {
        [path] => fs::remove_file(path),
        [path, seed, bytes, sync] => {
            let content = Content {
                seed: seed.parse()?,
                bytes: bytes.parse()?,
            };
            write_and_close(Path::new(path), &content.make(), sync.parse()?)
        }
        _ => bail!("{WORD} is not for people"),
    };
    Ok(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            writeln!(io::stdout(), "{e}")?;
            ExitCode::FAILURE
        }
    })
}

fn write_and_close(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    let mut file = File::create(path)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| if sync { file.sync_all() } else { Ok(()) });
    close(OwnedFd::from(file))?;
    written
}
