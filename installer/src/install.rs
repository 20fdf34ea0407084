//! Installing the driver in kubelet's plugin directory, so that kubelet, which watches it
//! (`pkg/volume/flexvolume/probe.go`), sees one change and never an absent or partial driver:
//! kubelet ignores names that begin with a dot, so everything is made under such a name next to the
//! driver, tested there, and renamed.

use crate::directory::{Directory, Kind};
use crate::driver::{self, Init};
use crate::inspect::{MODE, State, check_directory, inspect};
use alicloud_oss::kubelet::{DRIVER_DIRECTORY, DRIVER_FILE};
use alicloud_oss::sys::deadline::Deadline;
use alicloud_oss::sys::lock;
use alicloud_oss::text::list;
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The names under which both are made before they are renamed.
const NEW_DIRECTORY: &str = ".alicloud~oss";
const NEW_FILE: &str = ".oss.new";

/// How long another installer is waited for: far longer than one takes that tries a driver out.
const LOCK_LIMIT: Duration = Duration::from_secs(30);

/// The path of the driver, installed or not.
pub(crate) fn path(plugins: &Directory) -> PathBuf {
    plugins.path().join(DRIVER_DIRECTORY).join(DRIVER_FILE)
}

/// Installs the driver, whatever is at its path now. Returns what was there; on an error that is
/// still there. One installer at a time, under a lock.
pub(crate) fn install(plugins: &Directory, image: &Path) -> Result<State> {
    let _lock = lock(plugins)?;
    clear(plugins, NEW_DIRECTORY)?;
    if let Some(directory) = existing(plugins)? {
        clear(&directory, NEW_FILE)?;
    }
    let state = inspect(plugins, image)?;
    match &state {
        State::Current => {}
        State::NoDirectory | State::ForeignDirectory => install_directory(plugins, image, &state)?,
        State::NoFile | State::DirectoryAsFile | State::Wrong(_) => {
            let directory =
                existing(plugins)?.context("the driver's directory was removed meanwhile")?;
            // Before anything is made in it, so that nobody else can change that.
            if check_directory(&directory)?.is_some() {
                directory.own(MODE)?;
            }
            let is_directory = directory.kind(DRIVER_FILE)? == Some(Kind::Directory);
            install_file(&directory, image, is_directory)?;
        }
    }
    Ok(state)
}

/// Whether an installer that was killed has left something incomplete.
pub(crate) fn has_leftovers(plugins: &Directory) -> Result<bool> {
    let inside = match existing(plugins)? {
        Some(directory) => directory.kind(NEW_FILE)?.is_some(),
        None => false,
    };
    Ok(inside || plugins.kind(NEW_DIRECTORY)?.is_some())
}

/// Keeps other installers from the plugin directory until it is dropped.
pub(crate) fn lock(plugins: &Directory) -> Result<File> {
    let path = plugins.path().display();
    // A file description of its own: the lock belongs to it, and ends with it (flock(2)).
    let file = File::open(plugins.path()).with_context(|| format!("open {path}"))?;
    let held = lock::wait_for(file, Deadline::after(LOCK_LIMIT));
    match held.with_context(|| format!("lock {path}"))? {
        Some(file) => Ok(file),
        None => bail!(
            "another process has held the lock of {path} for {} s: see proc_locks(5), one installer \
             for each node is expected",
            LOCK_LIMIT.as_secs()
        ),
    }
}

/// The driver's directory, if it is one.
pub(crate) fn existing(plugins: &Directory) -> Result<Option<Directory>> {
    match plugins.kind(DRIVER_DIRECTORY)? {
        Some(Kind::Directory) => plugins.directory(DRIVER_DIRECTORY),
        _ => Ok(None),
    }
}

/// Makes the whole directory under another name and renames it: kubelet never sees an empty one.
fn install_directory(plugins: &Directory, image: &Path, state: &State) -> Result<()> {
    let made = plugins
        .make_directory(NEW_DIRECTORY, MODE)
        .and_then(|directory| {
            copy(image, &directory, DRIVER_FILE)?;
            test_driver(&directory.path().join(DRIVER_FILE))?;
            directory.sync()
        });
    if made.is_err() {
        clear(plugins, NEW_DIRECTORY)?;
    }
    made?;
    rename_over(
        plugins,
        NEW_DIRECTORY,
        DRIVER_DIRECTORY,
        *state == State::ForeignDirectory,
    )
}

/// Makes the file under another name and renames it over what is there.
fn install_file(directory: &Directory, image: &Path, is_directory: bool) -> Result<()> {
    let made = copy(image, directory, NEW_FILE)
        .and_then(|()| test_driver(&directory.path().join(NEW_FILE)));
    if made.is_err() {
        clear(directory, NEW_FILE)?;
    }
    made?;
    rename_over(directory, NEW_FILE, DRIVER_FILE, is_directory)
}

/// Renames `new` to `name`; with `foreign`, what is there is of a kind that a rename does not
/// replace, and is moved aside after that.
fn rename_over(directory: &Directory, new: &str, name: &str, foreign: bool) -> Result<()> {
    if !foreign {
        directory.rename(new, name)?;
    } else if directory.exchange(new, name)? {
        clear(directory, new)?;
    } else {
        // Not in one step on such a file system; but no driver was there either.
        move_aside(directory, name, name)?;
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
fn test_driver(path: &Path) -> Result<()> {
    match driver::init(path).context("try out the new driver")? {
        Init::Good => Ok(()),
        Init::NoCapabilities => bail!("try out the new driver: init answered no capabilities"),
    }
}

/// Removes the dot-name `name`: what an installer left there, or an exchange has brought there.
/// What is not an installer's is moved aside, to another dot-name.
fn clear(directory: &Directory, name: &str) -> Result<()> {
    match directory.kind(name)? {
        None => Ok(()),
        Some(Kind::File | Kind::Other) => directory.remove(name),
        Some(Kind::Directory) => {
            let inner = directory
                .directory(name)?
                .context("it was removed meanwhile")?;
            let names = inner.names()?;
            let only_ours = names.iter().all(|n| n == DRIVER_FILE)
                && inner
                    .kind(DRIVER_FILE)?
                    .is_none_or(|kind| kind == Kind::File);
            if !only_ours {
                return move_aside(directory, name, name);
            }
            inner.remove(DRIVER_FILE)?;
            directory.remove_directory(name)
        }
    }
}

fn move_aside(directory: &Directory, name: &str, like: &str) -> Result<()> {
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos());
    let aside = format!(".{}.replaced-{time}", like.trim_start_matches('.'));
    directory.rename(name, &aside)?;
    log::warn!(
        "what was at the path of the driver is kept as {}: remove it when nobody needs it",
        directory.path().join(aside).display()
    );
    Ok(())
}

/// Whose driver is in a plugin directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// There is none.
    Nobody,
    /// It is this driver, of whichever build.
    Installer,
    /// It is another one, or none that runs.
    Other,
}

/// Whose driver is in `plugins`. What somebody else than root may have changed is not run for that.
pub(crate) fn owner(plugins: &Directory, image: &Path) -> Result<Owner> {
    let Some(directory) = existing(plugins)? else {
        return Ok(Owner::Nobody);
    };
    if directory.kind(DRIVER_FILE)?.is_none() {
        return Ok(Owner::Nobody);
    }
    // In an uninstall by a package there is no image.
    let is_current = image.exists() && inspect(plugins, image)? == State::Current;
    let is_ours = is_current
        || check_directory(&directory)?.is_none()
            && driver::build(&path(plugins)).is_ok_and(|build| build.starts_with(driver::NAME));
    Ok(match is_ours {
        true => Owner::Installer,
        false => Owner::Other,
    })
}

/// Removes the driver, and its directory unless there are files of somebody else's in it. First the
/// file: its removal is what makes kubelet unload the driver.
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
            list(&names, ", ")
        );
    }
    plugins.sync()
}
