//! Which plugin directory the driver belongs into: the one given, else the one that the running
//! kubelet reads, else the only well-known one that exists. A wrong directory shows only as "no
//! volume plugin matched" in the events of a Pod, so nothing is guessed.

use crate::args::Settings;
use crate::finding::Finding;
use crate::host::Host;
use crate::kubelet::findings;
use crate::kubelet::process::{self, Kubelet, PluginDirectory};
use alicloud_oss::kubelet::DRIVER_DIRECTORY;
use anyhow::{Context as _, Result, bail};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The directories of the platforms that are known, from their own manuals.
pub(crate) const WELL_KNOWN: [(&str, &str); 9] = [
    (crate::kubelet::DEFAULT_DIRECTORY, "kubeadm, k3s, kubespray"),
    (
        "/opt/libexec/kubernetes/kubelet-plugins/volume/exec",
        "Flatcar, Fedora CoreOS",
    ),
    ("/home/kubernetes/flexvolume", "GKE"),
    ("/etc/kubernetes/volumeplugins", "AKS"),
    ("/etc/kubernetes/kubelet-plugins/volume/exec", "OpenShift"),
    (
        "/var/lib/kubelet/volumeplugins",
        "RKE, RKE2, Gardener, Typhoon",
    ),
    ("/usr/libexec/k0s/kubelet-plugins/volume/exec", "k0s"),
    ("/var/lib/kubelet/plugins/volume/exec", "Bottlerocket"),
    (crate::kubelet::MICROSHIFT_DIRECTORY, "MicroShift"),
];

/// A plugin directory that is certain.
#[derive(Debug)]
pub(crate) struct Found {
    /// As the host sees it.
    pub(crate) path: PathBuf,
    /// How it is known, for the log.
    pub(crate) how: String,
    /// Through which root it is reached, and the programs that the driver calls with it.
    pub(crate) host: Host,
    /// The kubelets that read it.
    pub(crate) kubelets: Vec<u32>,
    /// Whether no kubelet is in another mount namespace than the host's first process.
    pub(crate) on_host: bool,
    pub(crate) findings: Vec<Finding>,
}

/// The plugin directory of this node, which was `before` at the last search: while kubelet is
/// restarted, that one holds. An error says which setting helps.
pub(crate) fn find(settings: &Settings, before: Option<&Path>) -> Result<Found> {
    let Some(root) = &settings.host_root else {
        let path = settings.plugin_dir.clone().context(
            "no plugin directory is given, and without the host's root kubelet's is not known: set \
             --plugin-dir, or --host-root=/proc/1/root with hostPID",
        )?;
        return Ok(Found {
            path,
            how: "given as --plugin-dir".to_owned(),
            host: Host::new(Path::new("/")),
            kubelets: Vec::new(),
            on_host: true,
            findings: Vec::new(),
        });
    };
    let host = host(root)?;
    let kubelets = process::running(&settings.proc)?;
    let read = directories(&kubelets);
    match &settings.plugin_dir {
        Some(path) => given(path, host, kubelets, read),
        None if kubelets.is_empty() => match before {
            Some(path) => Ok(Found {
                path: path.to_owned(),
                how: "found earlier; kubelet is not running".to_owned(),
                host,
                kubelets: Vec::new(),
                on_host: true,
                findings: Vec::new(),
            }),
            None => well_known(host),
        },
        None => read_by_all(host, &kubelets, read?),
    }
}

/// The host whose root is seen at `root`. Without hostPID the first process is the container's own.
fn host(root: &Path) -> Result<Host> {
    let identity = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    if root != Path::new("/") && identity(root).ok() == identity(Path::new("/")).ok() {
        bail!(
            "--host-root={} is this process's own root: set hostPID: true (on the host itself, \
             --host-root=/)",
            root.display()
        );
    }
    Ok(Host::new(root))
}

/// Where the driver may be installed.
pub(crate) struct Installed {
    pub(crate) host: Host,
    pub(crate) kubelets: Vec<u32>,
    pub(crate) directories: Vec<PathBuf>,
}

/// The plugin directories that the driver is to be removed from: the one that `find` finds; where no
/// kubelet runs and none is given, each well-known one that has the driver.
pub(crate) fn installed(settings: &Settings) -> Result<Installed> {
    if let (Some(root), None) = (&settings.host_root, &settings.plugin_dir)
        && process::running(&settings.proc)?.is_empty()
    {
        let host = host(root)?;
        let has_driver = |path: &Path| host.metadata(&path.join(DRIVER_DIRECTORY)).is_ok();
        let known = WELL_KNOWN.iter().map(|(path, _)| PathBuf::from(path));
        return Ok(Installed {
            directories: known.filter(|path| has_driver(path)).collect(),
            kubelets: Vec::new(),
            host,
        });
    }
    let found = find(settings, None)?;
    Ok(Installed {
        directories: vec![found.path],
        kubelets: found.kubelets,
        host: found.host,
    })
}

fn directories(kubelets: &[Kubelet]) -> Result<Vec<PluginDirectory>> {
    kubelets.iter().map(Kubelet::plugin_directory).collect()
}

/// The directory that was given, with a finding if a running kubelet reads another.
fn given(
    path: &Path,
    host: Host,
    kubelets: Vec<Kubelet>,
    read: Result<Vec<PluginDirectory>>,
) -> Result<Found> {
    let mut findings = findings::of(&host, &kubelets);
    match read {
        Ok(read) => {
            let same = |other: &PluginDirectory| normal(&other.path) == normal(path);
            if let Some(other) = read.iter().find(|_| !read.iter().any(same)) {
                findings.push(Finding::blocks_mounting(format!(
                    "--plugin-dir is {:?}, but kubelet reads {:?} ({}): leave --plugin-dir out",
                    path, other.path, other.how
                )));
            }
        }
        Err(e) => findings.push(Finding::note(format!(
            "the plugin directory of kubelet is not known: {e:#}"
        ))),
    }
    Ok(Found {
        path: path.to_owned(),
        how: "given as --plugin-dir".to_owned(),
        host,
        kubelets: kubelets.iter().map(|kubelet| kubelet.pid).collect(),
        on_host: kubelets.iter().all(|kubelet| kubelet.on_host),
        findings,
    })
}

/// The directory that all the running kubelets read.
fn read_by_all(host: Host, kubelets: &[Kubelet], read: Vec<PluginDirectory>) -> Result<Found> {
    let mut read = read.into_iter();
    let first = read.next().context("no kubelet runs")?;
    for other in read {
        if normal(&other.path) != normal(&first.path) {
            bail!(
                "two kubelets read different plugin directories, {:?} ({}) and {:?} ({}): set \
                 --plugin-dir",
                first.path,
                first.how,
                other.path,
                other.how
            );
        }
    }
    let mut findings = findings::of(&host, kubelets);
    let mut seen_through = host.clone();
    for kubelet in kubelets.iter().filter(|kubelet| !kubelet.on_host) {
        let (name, pid) = (kubelet.name(), kubelet.pid);
        let inside = identity(&kubelet.root, &first.path);
        if inside.is_none() || inside != identity(&host, &first.path) {
            bail!(
                "{name} (pid {pid}) runs in a container, where {:?} is not the host's: mount the \
                 host's directory there, or set --plugin-dir to it",
                first.path
            );
        }
        findings.push(Finding::note(format!(
            "{name} (pid {pid}) runs in a container: the driver runs there, and so must \
             ossfs"
        )));
        seen_through = kubelet.root.clone();
    }
    Ok(Found {
        path: first.path,
        how: first.how,
        host: seen_through,
        kubelets: kubelets.iter().map(|kubelet| kubelet.pid).collect(),
        on_host: kubelets.iter().all(|kubelet| kubelet.on_host),
        findings,
    })
}

/// The only well-known directory that exists.
fn well_known(host: Host) -> Result<Found> {
    let exists = |path: &str| {
        host.metadata(Path::new(path))
            .is_ok_and(|meta| meta.is_dir())
    };
    let mut found = WELL_KNOWN.iter().filter(|(path, _)| exists(path));
    match (found.next(), found.next()) {
        (Some((path, platforms)), None) => Ok(Found {
            path: path.into(),
            how: format!(
                "no kubelet runs; of the well-known directories only this one exists ({platforms})"
            ),
            host,
            kubelets: Vec::new(),
            on_host: true,
            findings: Vec::new(),
        }),
        (Some((one, _)), Some((other, _))) => bail!(
            "no kubelet runs, and more than one well-known plugin directory exists ({one:?}, \
             {other:?}): set --plugin-dir"
        ),
        _ => bail!(
            "no kubelet runs, and no well-known plugin directory exists: set --plugin-dir to \
             kubelet's --volume-plugin-dir"
        ),
    }
}

/// What tells two directories apart; nothing where there is none.
fn identity(host: &Host, path: &Path) -> Option<(u64, u64)> {
    host.metadata(path)
        .ok()
        .map(|meta| (meta.dev(), meta.ino()))
}

/// `path` without doubled or trailing slashes.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}
