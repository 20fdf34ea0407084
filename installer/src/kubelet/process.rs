//! The kubelets that run, from the host's /proc, and the plugin directory of each.

use crate::host::Host;
use crate::kubelet::{
    DEFAULT_DIRECTORY, DEFAULT_ROOT, Flags, MICROSHIFT_DIRECTORY, Program, config, expand,
};
use alicloud_oss::sys::process::MAX_COMMAND_LINE;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Where k3s reads its own options (`--config` of k3s moves it), and its drop-in files.
const K3S_CONFIG: &str = "/etc/rancher/k3s/config.yaml";
const K3S_CONFIG_DIR: &str = "/etc/rancher/k3s/config.yaml.d";
/// The drop-in files that k3s makes for its kubelet.
const K3S_KUBELET_DIR: &str = "/var/lib/rancher/k3s/agent/etc/kubelet.conf.d";

/// Where MicroK8s has the arguments of its kubelet, unless kubelite is told of another file.
const KUBELITE_ARGS: &str = "$SNAP_DATA/args/kubelet";

/// A running kubelet.
#[derive(Debug)]
pub(crate) struct Kubelet {
    pub(crate) pid: u32,
    pub(crate) flags: Flags,
    /// Its root directory, in which its paths are resolved.
    pub(crate) root: Host,
    /// Whether its mount namespace is that of the host's first process.
    pub(crate) on_host: bool,
    directory: PathBuf,
}

/// A plugin directory, as the kubelet that reads it sees the path, and how that is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PluginDirectory {
    pub(crate) path: PathBuf,
    pub(crate) how: String,
}

/// The kubelets among the processes of `proc`, by process id. Only what runs as root in the host's
/// own pid and user namespaces is believed: anybody's process in a Pod may call itself kubelet. Its mount
/// namespace may be another one, where it runs in a container.
pub(crate) fn running(proc: &Path) -> Result<Vec<Kubelet>> {
    let first = proc.join("1/ns/pid");
    std::fs::read_link(&first).with_context(|| {
        format!(
            "read {}, which tells the host's processes from others: the capability SYS_PTRACE is \
             needed",
            first.display()
        )
    })?;
    let entries = std::fs::read_dir(proc).with_context(|| format!("list {}", proc.display()))?;
    let mut found: Vec<Kubelet> = entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            kubelet(&proc.join("1"), pid, &entry.path())
        })
        .collect();
    found.sort_by_key(|kubelet| kubelet.pid);
    Ok(found)
}

/// The process at `directory` if it is a kubelet in the pid and user namespaces of the host's process
/// `first`; one that has exited meanwhile is none. Of others nothing is read that they can make long.
fn kubelet(first: &Path, pid: u32, directory: &Path) -> Option<Kubelet> {
    let status = std::fs::read_to_string(directory.join("status")).ok()?;
    // Kernels may have no user namespaces.
    let namespace = |process: &Path, kind| std::fs::read_link(process.join("ns").join(kind)).ok();
    let is_same = |kind| namespace(directory, kind) == namespace(first, kind);
    if !is_roots(&status) || !is_same("pid") || !is_same("user") {
        return None;
    }
    let flags = Flags::parse(&command_line(directory).ok()?)?;
    Some(Kubelet {
        pid,
        flags,
        root: Host::new(&directory.join("root")),
        on_host: is_same("mnt"),
        directory: directory.to_owned(),
    })
}

/// The arguments of the process at `directory`, cut where no kubelet's are so long.
fn command_line(directory: &Path) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let file = File::open(directory.join("cmdline"))?;
    file.take(MAX_COMMAND_LINE).read_to_end(&mut line)?;
    Ok(line)
}

/// Whether the text of a `/proc/PID/status` is of a process of root's, or of this process's user.
fn is_roots(status: &str) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)?.parse().ok())
        .is_some_and(|uid: u32| uid == 0 || uid == own)
}

impl Kubelet {
    /// The plugin directory that this kubelet reads.
    pub(crate) fn plugin_directory(&self) -> Result<PluginDirectory> {
        let flags = self.all_flags()?;
        let (program, pid) = (self.name(), self.pid);
        if let Some(path) = &flags.plugin_dir {
            return Ok(PluginDirectory {
                path: self.absolute(path),
                how: format!("--volume-plugin-dir of {program} (pid {pid})"),
            });
        }
        if let Some((path, file)) = self.named_in_files(&flags)? {
            let how = format!(
                "volumePluginDir in {} of {program} (pid {pid})",
                file.display()
            );
            return Ok(PluginDirectory { path, how });
        }
        let default = match flags.program {
            Program::Kubelet | Program::K3s | Program::MicroK8s => DEFAULT_DIRECTORY,
            Program::MicroShift => MICROSHIFT_DIRECTORY,
        };
        Ok(PluginDirectory {
            path: default.into(),
            how: format!("the default of {program} (pid {pid}), which names no other"),
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        match self.flags.program {
            Program::Kubelet => "kubelet",
            Program::K3s => "k3s",
            Program::MicroShift => "microshift",
            Program::MicroK8s => "kubelite",
        }
    }

    /// Its root directory, below which its Pods' volumes are mounted.
    pub(crate) fn root_directory(&self) -> Result<PathBuf> {
        let root = self.all_flags()?.root_dir;
        Ok(self.absolute(root.as_deref().unwrap_or(DEFAULT_ROOT)))
    }

    /// The variable `name` of its environment.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let mut text = Vec::new();
        let file = File::open(self.directory.join("environ")).ok()?;
        file.take(MAX_COMMAND_LINE).read_to_end(&mut text).ok()?;
        String::from_utf8_lossy(&text).split('\0').find_map(|line| {
            let (found, value) = line.split_once('=')?;
            (found == name).then(|| value.to_owned())
        })
    }

    /// Its arguments, with those that k3s and kubelite have in files; arguments win.
    fn all_flags(&self) -> Result<Flags> {
        match self.flags.program {
            Program::K3s => self.flags_of_k3s(),
            Program::MicroK8s => self.flags_of_kubelite(),
            Program::Kubelet | Program::MicroShift => Ok(self.flags.clone()),
        }
    }

    fn flags_of_kubelite(&self) -> Result<Flags> {
        let mut flags = self.flags.clone();
        let variable = |name: &str| self.variable(name);
        let named = flags.args_file.as_deref().unwrap_or(KUBELITE_ARGS);
        let file = self.absolute(&expand(named, &variable));
        let text = self.root.read(&file).with_context(|| {
            format!(
                "read {}, the arguments of kubelite (pid {})",
                file.display(),
                self.pid
            )
        })?;
        flags.add_file(&text, variable);
        Ok(flags)
    }

    fn flags_of_k3s(&self) -> Result<Flags> {
        let mut flags = Flags {
            config_dir: Some(K3S_KUBELET_DIR.to_owned()),
            ..Flags::none(Program::K3s)
        };
        let mut files = self.list(Path::new(K3S_CONFIG_DIR), "yaml")?;
        files.insert(0, K3S_CONFIG.into());
        for file in files {
            if let Some(text) = self.read_optional(&file)? {
                let args = config::k3s_kubelet_args(&text)
                    .with_context(|| format!("read {}", file.display()))?;
                flags.add_embedded(&args);
            }
        }
        for (own, flag) in [
            (&self.flags.plugin_dir, &mut flags.plugin_dir),
            (&self.flags.config, &mut flags.config),
            (&self.flags.config_dir, &mut flags.config_dir),
            (&self.flags.root_dir, &mut flags.root_dir),
        ] {
            if own.is_some() {
                flag.clone_from(own);
            }
        }
        Ok(flags)
    }

    /// The directory that the configuration files name, and the file that does. A drop-in file
    /// beats the main one; a relative path is meant from the main file's directory
    /// (`pkg/kubelet/kubeletconfig/configfiles`).
    fn named_in_files(&self, flags: &Flags) -> Result<Option<(PathBuf, PathBuf)>> {
        let main = flags.config.as_deref().map(|path| self.absolute(path));
        let mut files: Vec<PathBuf> = main.iter().cloned().collect();
        if let Some(directory) = &flags.config_dir {
            files.extend(self.list(&self.absolute(directory), "conf")?);
        }
        let mut found = None;
        for file in files {
            let read = || -> Result<Option<String>> { config::plugin_dir(&self.root.read(&file)?) };
            let value = read().with_context(|| {
                format!(
                    "read {}, the configuration of {} (pid {})",
                    file.display(),
                    self.name(),
                    self.pid
                )
            })?;
            if let Some(value) = value {
                let base = main.as_deref().unwrap_or(&file).parent();
                found = Some((base.unwrap_or(Path::new("/")).join(value), file));
            }
        }
        Ok(found)
    }

    /// `path` as this process means it: from the directory that it works in.
    fn absolute(&self, path: &str) -> PathBuf {
        let cwd = std::fs::read_link(self.directory.join("cwd"));
        cwd.unwrap_or_else(|_| "/".into()).join(path)
    }

    /// The files in `directory` with `extension`, in the order of their names; none where there is
    /// no such directory.
    fn list(&self, directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
        let located = self
            .root
            .locate(directory)
            .with_context(|| format!("resolve {}", directory.display()))?;
        let mut files: Vec<PathBuf> = std::fs::read_dir(located)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| directory.join(entry.file_name()))
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect();
        files.sort();
        Ok(files)
    }

    fn read_optional(&self, path: &Path) -> Result<Option<String>> {
        match self.root.read(path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_roots;

    #[test]
    fn only_root_and_oneself_are_believed() {
        let own = nix::unistd::geteuid().as_raw();
        assert!(is_roots("Name:\tx\nUid:\t0\t0\t0\t0\n"));
        assert!(is_roots(&format!("Uid:\t7\t{own}\t7\t7\n")));
        assert!(!is_roots("Uid:\t0\t65534\t0\t0\n"));
        assert!(!is_roots("Name:\tx\n"));
    }
}
