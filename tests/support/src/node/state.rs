//! What a node leaves on the host while it runs, and the cleaning after runs that did not end properly.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::node::cgroup::Cgroups;

/// Holds one directory for each running node.
const ROOT: &str = "/run/oss-flexvolume-tests";

/// Where systemd-nspawn keeps a directory for each container, and leaves it if it is killed.
const PROPAGATE: &str = "/run/systemd/nspawn/propagate";

/// The directory and the control groups of one node. Dropping it kills what is in the groups and removes both.
#[derive(Debug)]
pub(crate) struct State {
    name: String,
    directory: PathBuf,
    cgroups: Cgroups,
    /// Its lock tells other processes that the owner lives.
    _owner: File,
}

impl State {
    /// Removes what dead test processes left, then makes the state of a new node, with control groups in the
    /// hierarchies that systemd needs or in that of every controller.
    pub(crate) fn create(every_controller: bool) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        fs::create_dir_all(ROOT).with_context(|| format!("make {ROOT}"))?;
        let lock = create_locked(&Path::new(ROOT).join("lock"))?;
        sweep()?;
        let name = format!(
            "oss-node-{}-{}",
            process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = Path::new(ROOT).join(&name);
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let owner = create_locked(&directory.join("owner"))?;
        let cgroups = Cgroups::plan(&name, every_controller)?;
        fs::write(directory.join("cgroups"), cgroups.record()).context("record the cgroups")?;
        drop(lock);

        let state = Self {
            name,
            directory,
            cgroups,
            _owner: owner,
        };
        state.cgroups.create()?;
        Ok(state)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // On an error the directory stays, and the next boot of a node tries again.
        remove(&self.directory, &self.cgroups).ok();
    }
}

/// Makes a file, or opens it, and waits for its lock. The lock lasts as long as the file is open.
pub(crate) fn create_locked(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    file.lock()
        .with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// Removes the state of every node whose owner is dead.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(ROOT)
        .with_context(|| format!("read {ROOT}"))?
        .flatten()
    {
        let directory = entry.path();
        if !directory.is_dir() {
            continue;
        }
        let owner = File::open(directory.join("owner"));
        if owner.is_ok_and(|owner| owner.try_lock().is_err()) {
            continue;
        }
        let record = fs::read_to_string(directory.join("cgroups")).unwrap_or_default();
        remove(&directory, &Cgroups::recorded(&record))
            .with_context(|| format!("clean up after the dead node in {}", directory.display()))?;
    }
    Ok(())
}

fn remove(directory: &Path, cgroups: &Cgroups) -> Result<()> {
    cgroups.remove()?;
    if let Some(name) = directory.file_name() {
        absent(fs::remove_dir(Path::new(PROPAGATE).join(name)))?;
    }
    absent(fs::remove_dir_all(directory))
}

/// Takes the result of a removal; that there was nothing is no error.
fn absent(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
