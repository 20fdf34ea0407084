//! What is installed at the driver's path, and whether it is this driver as it must be.

use crate::directory::{Directory, Kind, kind};
use alicloud_oss::kubelet::{DRIVER_DIRECTORY, DRIVER_FILE};
use anyhow::{Context as _, Result};
use nix::sys::stat::{FileStat, Mode, fstat};
use std::fmt;
use std::fs::File;
use std::io::{Read, Result as IoResult};
use std::path::Path;

/// The mode of the driver and its directory: all may read and run it, root alone may change it.
pub(crate) const MODE: Mode = Mode::from_bits_truncate(0o755);

/// What is installed at the driver's path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// This driver, byte by byte, with the right owner and mode.
    Current,
    NoDirectory,
    /// A link or a file at the path of the driver's directory. kubelet does not see a link to a
    /// directory when it starts.
    ForeignDirectory,
    NoFile,
    /// A directory at the path of the driver.
    DirectoryAsFile,
    /// Something that a rename replaces; the text says what is wrong.
    Wrong(String),
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(match self {
            Self::Current => "this driver is installed",
            Self::NoDirectory | Self::NoFile => "no driver is installed",
            Self::ForeignDirectory => "alicloud~oss is not a directory",
            Self::DirectoryAsFile => "the driver is a directory",
            Self::Wrong(what) => what,
        })
    }
}

/// What is installed at the path of the driver `image`.
pub(crate) fn inspect(plugins: &Directory, image: &Path) -> Result<State> {
    match plugins.kind(DRIVER_DIRECTORY)? {
        None => return Ok(State::NoDirectory),
        Some(Kind::Directory) => {}
        Some(_) => return Ok(State::ForeignDirectory),
    }
    let Some(directory) = plugins.directory(DRIVER_DIRECTORY)? else {
        return Ok(State::NoDirectory);
    };
    if let Some(what) = check_directory(&directory)? {
        return Ok(State::Wrong(what));
    }
    let Some(stat) = directory.stat(DRIVER_FILE)? else {
        return Ok(State::NoFile);
    };
    Ok(match kind(&stat) {
        Kind::Directory => State::DirectoryAsFile,
        Kind::Other => State::Wrong("the driver is a link or a special file".to_owned()),
        Kind::File => match check_file(&stat) {
            Some(what) => State::Wrong(what),
            None => {
                let installed = directory.read(DRIVER_FILE)?;
                let image = File::open(image)
                    .with_context(|| format!("open the driver {}", image.display()))?;
                match is_same(installed, image).context("compare the drivers")? {
                    true => State::Current,
                    false => State::Wrong("another driver is installed".to_owned()),
                }
            }
        },
    })
}

/// What is wrong about mode and owner of a driver's directory: whoever may write there can change what
/// kubelet runs as root.
pub(crate) fn check_directory(directory: &Directory) -> Result<Option<String>> {
    let stat = fstat(directory).context("stat the driver's directory")?;
    let is_safe = stat.st_uid == nix::unistd::geteuid().as_raw() && stat.st_mode & 0o022 == 0;
    Ok((!is_safe).then(|| {
        format!(
            "the driver's directory belongs to user {} and has mode {:04o}",
            stat.st_uid,
            stat.st_mode & 0o7777
        )
    }))
}

/// What is wrong about mode and owner of a driver.
fn check_file(stat: &FileStat) -> Option<String> {
    let own = nix::unistd::geteuid().as_raw();
    let mode = stat.st_mode & 0o7777;
    if mode != MODE.bits() {
        return Some(format!("the driver has mode {mode:04o}, not 0755"));
    }
    (stat.st_uid != own).then(|| format!("the driver belongs to user {}, not {own}", stat.st_uid))
}

/// Whether both have the same bytes.
fn is_same(mut one: File, mut other: File) -> IoResult<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        let count = read_full(&mut one, &mut left)?;
        if count != read_full(&mut other, &mut right)? || left[..count] != right[..count] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> IoResult<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read(&mut buffer[count..])? {
            0 => break,
            n => count += n,
        }
    }
    Ok(count)
}
