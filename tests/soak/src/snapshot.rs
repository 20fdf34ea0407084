//! All that can be seen of the node: mounts, processes and what they have open, files.

use crate::volumes::Paths;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use support::{Mount, OWN_TABLE};

/// The node at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) mounts: Vec<Mount>,
    /// The mounts of each container, by its process.
    pub(crate) containers: BTreeMap<u32, Vec<Mount>>,
    pub(crate) processes: Vec<Process>,
    /// What is in the state directory, by path in it; directories end in a slash.
    pub(crate) state: BTreeMap<String, File>,
    /// The driver's logs.
    pub(crate) logs: BTreeMap<String, File>,
    /// Directories of targets.
    pub(crate) targets: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) name: String,
    pub(crate) arguments: String,
    pub(crate) environment: String,
    /// The program's file.
    pub(crate) program: String,
    /// What is open, by descriptor.
    pub(crate) open: BTreeMap<u32, String>,
    /// Its own memory, in KiB.
    pub(crate) memory: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct File {
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
}

impl Snapshot {
    /// Reads all of it; of the mounts those below the run's own directory.
    pub(crate) fn read(paths: &Paths, containers: &[u32]) -> Self {
        let own = format!("{}/", paths.root.display());
        let kubelet = paths.pods.parent().map(|path| path.display().to_string());
        let mut mounts = Mount::table(OWN_TABLE);
        mounts.retain(|mount| {
            mount.point.starts_with(&own) && Some(&mount.point) != kubelet.as_ref()
        });
        let table = |pid: &u32| (*pid, Mount::table(format!("/proc/{pid}/mountinfo")));
        Self {
            mounts,
            containers: containers.iter().map(table).collect(),
            processes: processes(),
            state: files(&paths.state),
            logs: paths.log.parent().map(files).unwrap_or_default(),
            targets: targets(&paths.pods),
        }
    }
}

/// Every process but this one and process 1, and those that have ended.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("list /proc");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != 1 && *pid != std::process::id())
        .filter_map(process)
        .collect()
}

fn process(pid: u32) -> Option<Process> {
    let directory = Path::new("/proc").join(pid.to_string());
    let text = |name| {
        let bytes = fs::read(directory.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    let stat = text("stat");
    let state = stat.rsplit_once(") ")?.1;
    if state.starts_with(['Z', 'X']) {
        return None;
    }
    let descriptors = fs::read_dir(directory.join("fd")).into_iter().flatten();
    let open = descriptors.flatten().filter_map(|entry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let link = fs::read_link(entry.path()).ok()?;
        Some((number, link.to_string_lossy().into_owned()))
    });
    let rollup = text("smaps_rollup");
    let memory = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let program = fs::read_link(directory.join("exe"));
    Some(Process {
        pid,
        parent: state.split(' ').nth(1)?.parse().ok()?,
        name: text("comm").trim().to_owned(),
        arguments: text("cmdline"),
        environment: text("environ"),
        program: program.map_or(String::new(), |path| path.to_string_lossy().into_owned()),
        open: open.collect(),
        memory: memory
            .and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap_or(0),
    })
}

/// What is below `root`, but for what is in staging directories.
fn files(root: &Path) -> BTreeMap<String, File> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("below the root");
            let mut name = name.to_string_lossy().into_owned();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            // A staging directory is not looked at: its daemon would be asked.
            let is_staging = entry.file_name() == "staging";
            let mode = match is_staging {
                true => 0,
                false => entry
                    .metadata()
                    .map_or(0, |meta| meta.permissions().mode() & 0o7777),
            };
            if is_directory {
                name.push('/');
                if !is_staging {
                    directories.push(path.clone());
                }
            }
            let content = match is_directory {
                true => Vec::new(),
                false => fs::read(&path).unwrap_or_default(),
            };
            found.insert(name, File { mode, content });
        }
    }
    found
}

/// The directories of targets that are there, mounted or not.
fn targets(pods: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for pod in fs::read_dir(pods).into_iter().flatten().flatten() {
        let directory = pod.path().join("volumes/alicloud~oss");
        for target in fs::read_dir(directory).into_iter().flatten().flatten() {
            found.push(target.path().to_string_lossy().into_owned());
        }
    }
    found.sort_unstable();
    found
}
