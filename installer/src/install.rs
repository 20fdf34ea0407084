//! Putting the driver into kubelet's plugin directory, so that kubelet, which watches it
//! (`pkg/volume/flexvolume/probe.go`), sees one change and never an absent or partial driver:
//! kubelet ignores names that begin with a dot, so everything is made under such a name beside the
//! driver, tried there, and renamed.

use crate::directory::{Directory, Kind};
use crate::driver::{self, Init};
use crate::inspect::{MODE, State, inspect, judge_directory};
use alicloud_oss::kubelet::{DRIVER_DIRECTORY, DRIVER_FILE};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The names under which both are made.
const NEW_DIRECTORY: &str = ".alicloud~oss";
const NEW_FILE: &str = ".oss.new";

/// Where the driver is or belongs.
pub(crate) fn path(plugins: &Directory) -> PathBuf {
    plugins.path().join(DRIVER_DIRECTORY).join(DRIVER_FILE)
}

/// Brings the driver into its place, whatever is there now. Returns what was there; on an error
/// that is still there. Two installers take turns.
pub(crate) fn install(plugins: &Directory, image: &Path) -> Result<State> {
    let _lock = lock(plugins)?;
    clear(plugins, NEW_DIRECTORY)?;
    if let Some(directory) = existing(plugins)? {
        clear(&directory, NEW_FILE)?;
    }
    let state = inspect(plugins, image)?;
    match &state {
        State::Right => {}
        State::NoDirectory | State::ForeignDirectory => install_directory(plugins, image, &state)?,
        State::NoFile | State::DirectoryAsFile | State::Wrong(_) => {
            let directory = existing(plugins)?.context("the driver's directory is gone")?;
            // First of all, so that nobody changes what is made there.
            if judge_directory(&directory)?.is_some() {
                directory.own(MODE)?;
            }
            let is_directory = directory.kind(DRIVER_FILE)? == Some(Kind::Directory);
            install_file(&directory, image, is_directory)?;
        }
    }
    Ok(state)
}

/// Whether something half made was left behind by an installer that was killed.
pub(crate) fn has_leftovers(plugins: &Directory) -> Result<bool> {
    let inside = match existing(plugins)? {
        Some(directory) => directory.kind(NEW_FILE)?.is_some(),
        None => false,
    };
    Ok(inside || plugins.kind(NEW_DIRECTORY)?.is_some())
}

/// Keeps other installers from the plugin directory until it is dropped.
pub(crate) fn lock(plugins: &Directory) -> Result<Flock<File>> {
    // A handle of its own: the lock belongs to it, and ends with it.
    let file =
        File::open(plugins.path()).with_context(|| format!("open {}", plugins.path().display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .with_context(|| format!("lock {}", plugins.path().display()))
}

/// The driver's directory, if it is one.
pub(crate) fn existing(plugins: &Directory) -> Result<Option<Directory>> {
    match plugins.kind(DRIVER_DIRECTORY)? {
        Some(Kind::Directory) => plugins.directory(DRIVER_DIRECTORY),
        _ => Ok(None),
    }
}

/// Makes the whole directory beside its place and renames it: kubelet never meets an empty one.
fn install_directory(plugins: &Directory, image: &Path, state: &State) -> Result<()> {
    let made = plugins
        .make_directory(NEW_DIRECTORY, MODE)
        .and_then(|directory| {
            copy(image, &directory, DRIVER_FILE)?;
            try_out(&directory.path().join(DRIVER_FILE))?;
            directory.sync()
        });
    if made.is_err() {
        clear(plugins, NEW_DIRECTORY)?;
    }
    made?;
    place(
        plugins,
        NEW_DIRECTORY,
        DRIVER_DIRECTORY,
        *state == State::ForeignDirectory,
    )
}

/// Makes the file beside its place and renames it over what is there.
fn install_file(directory: &Directory, image: &Path, is_directory: bool) -> Result<()> {
    let made =
        copy(image, directory, NEW_FILE).and_then(|()| try_out(&directory.path().join(NEW_FILE)));
    if made.is_err() {
        clear(directory, NEW_FILE)?;
    }
    made?;
    place(directory, NEW_FILE, DRIVER_FILE, is_directory)
}

/// Renames `new` to `name`; with `foreign`, what is there is of a kind that a rename does not
/// replace, and is put aside afterwards.
fn place(directory: &Directory, new: &str, name: &str, foreign: bool) -> Result<()> {
    if !foreign {
        directory.rename(new, name)?;
    } else if directory.exchange(new, name)? {
        clear(directory, new)?;
    } else {
        // Not at once on such a file system; but no driver was there either.
        put_aside(directory, name, name)?;
        directory.rename(new, name)?;
    }
    directory.sync()
}

fn copy(image: &Path, directory: &Directory, name: &str) -> Result<()> {
    let mut source =
        File::open(image).with_context(|| format!("open the driver {}", image.display()))?;
    directory.write(name, MODE, |file| {
        std::io::copy(&mut source, file).map(|_| ())
    })
}

/// An error unless the driver at `path` answers `init` as it must, where kubelet will run it.
fn try_out(path: &Path) -> Result<()> {
    match driver::init(path).context("try out the new driver")? {
        Init::Good => Ok(()),
        Init::NoCapabilities => bail!("try out the new driver: init answered no capabilities"),
    }
}

/// Removes the dot-name `name`: what an installer left there, or an exchange has brought there.
/// What is not an installer's is put aside, under another dot-name.
fn clear(directory: &Directory, name: &str) -> Result<()> {
    match directory.kind(name)? {
        None => Ok(()),
        Some(Kind::File | Kind::Other) => directory.remove(name),
        Some(Kind::Directory) => {
            let inner = directory.directory(name)?.context("it is gone")?;
            let names = inner.names()?;
            let only_ours = names.iter().all(|n| n == DRIVER_FILE)
                && inner
                    .kind(DRIVER_FILE)?
                    .is_none_or(|kind| kind == Kind::File);
            if !only_ours {
                return put_aside(directory, name, name);
            }
            inner.remove(DRIVER_FILE)?;
            directory.remove_directory(name)
        }
    }
}

fn put_aside(directory: &Directory, name: &str, like: &str) -> Result<()> {
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let aside = format!(".{}.replaced-{time}", like.trim_start_matches('.'));
    directory.rename(name, &aside)?;
    log::warn!(
        "what was in the driver's place is kept as {}: remove it when nobody needs it",
        directory.path().join(aside).display()
    );
    Ok(())
}

/// Removes the driver, and its directory unless there is something of somebody else's in it. First
/// the file: its removal is what makes kubelet forget the driver.
pub(crate) fn remove(plugins: &Directory) -> Result<()> {
    let _lock = lock(plugins)?;
    clear(plugins, NEW_DIRECTORY)?;
    let Some(directory) = existing(plugins)? else {
        return Ok(());
    };
    clear(&directory, NEW_FILE)?;
    directory.remove(DRIVER_FILE)?;
    let names = directory.names()?;
    if names.is_empty() {
        plugins.remove_directory(DRIVER_DIRECTORY)?;
    } else {
        log::warn!(
            "{} stays, it has files that are not the installer's: {}",
            directory.path().display(),
            names.join(", ")
        );
    }
    plugins.sync()
}
