//! Processes of the node, held by a file descriptor.

use std::path::PathBuf;
use support::Pidfd;
use support::node::Node;

/// A process of the node.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its id on this machine.
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) handle: Pidfd,
}

impl Process {
    fn open(pid: u32) -> Option<Self> {
        let handle = Pidfd::open(pid).ok()?;
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let program = std::fs::read_link(directory.join("exe")).ok()?;
        let arguments = std::fs::read(directory.join("cmdline")).ok()?;
        let arguments = arguments.split(|byte| *byte == 0);
        Some(Self {
            pid,
            name: program.file_name()?.to_string_lossy().into_owned(),
            arguments: arguments
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .filter(|word| !word.is_empty())
                .collect(),
            handle,
        })
    }
}

/// All processes of the node, in whatever namespaces: those in its control groups.
pub(crate) fn all(node: &Node) -> Vec<Process> {
    let groups =
        |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let first = groups(node.pid1());
    let Some(own) = first
        .split(['/', '\n'])
        .find(|part| part.starts_with("oss-node-"))
    else {
        return Vec::new();
    };
    let own = format!("/{own}/");
    let known: Vec<u32> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    known
        .into_iter()
        .filter(|pid| groups(*pid).contains(&own))
        .filter_map(Process::open)
        .collect()
}

/// The FUSE daemons of the node's volumes and what else runs of the driver.
pub(crate) fn of_driver(node: &Node) -> Vec<Process> {
    let mut processes = all(node);
    processes.retain(|process| is_of_driver(&process.name));
    processes
}

/// The FUSE daemons alone.
pub(crate) fn daemons(node: &Node) -> Vec<Process> {
    let mut processes = all(node);
    processes.retain(|process| is_daemon(&process.name));
    processes
}

/// The FUSE daemon, by the name of its program.
pub(crate) fn is_daemon(name: &str) -> bool {
    matches!(name, "ossfs" | "s3fs")
}

/// The process that carries a volume's requests; not its parent, which does nothing but keep the connection.
pub(crate) fn is_serve(process: &Process) -> bool {
    let has = |word: &str| process.arguments.iter().any(|argument| argument == word);
    is_of_driver(&process.name) && has("serve") && !has("--parent")
}

/// Anything of the driver, by the name of its program.
pub(crate) fn is_of_driver(name: &str) -> bool {
    is_daemon(name)
        || matches!(
            name.trim_end_matches(" (deleted)"),
            "oss" | "fusermount" | "fusermount3"
        )
}
