//! The call `mount TARGET JSON`: a bucket is mounted at TARGET, or nothing is changed.

use crate::config::{Config, NodeCredentials, Sandbox};
use crate::credentials::{Credentials, KeyPair};
use crate::kubelet::target::Target;
use crate::mounts::bind::bind;
use crate::mounts::directory::Directory;
use crate::mounts::table::MountTable;
use crate::ossfs::launch;
use crate::ossfs::probe::{self, Health};
use crate::request::{CredentialSource, MountRequest};
use crate::service::ensure;
use crate::service::plan::{self, Node};
use crate::service::release::{Shutdown, log_failed_cleanup, release, remove};
use crate::state::directory::StateDirectory;
use crate::state::identity::identity;
use crate::state::uid;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::{failpoint, root_only, selinux};
use anyhow::{Context as _, Result, anyhow, bail};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Mounts what the options `json` describe at `target`. `subject` gets the bucket, for the log.
pub(super) fn mount(
    target: &Target,
    json: &str,
    config: &Config,
    subject: &mut String,
) -> Result<()> {
    let deadline = Deadline::after(config.mount_timeout);
    let request = MountRequest::parse(json, config).map_err(anyhow::Error::msg)?;
    *subject = format!("bucket={:?}", request.location.source());
    for notice in &request.notices {
        log::info!("{notice}");
    }
    if config.sandbox == Sandbox::Off {
        log::warn!("\"sandbox\" is \"off\" in the node configuration: ossfs runs as root");
    }
    let credentials = resolve(&request.credentials, config)?;
    if let Credentials::Keys(pair) = &credentials {
        subject.push_str(&format!(" key={}", pair.short_id()));
    }
    let mounted = prepare(config)
        .and_then(|node| attach(target, &request, &credentials, config, &node, deadline));
    match &credentials {
        // The output of ossfs may have a key in it.
        Credentials::Keys(pair) => {
            mounted.map_err(|e| anyhow!("{}", pair.redact(&format!("{e:#}"))))
        }
        Credentials::RamRole(_) => mounted,
    }
}

/// The credentials that come from `source`; those of the node are read from its files.
fn resolve(source: &CredentialSource, config: &Config) -> Result<Credentials> {
    Ok(match source {
        CredentialSource::Given(pair) => Credentials::Keys(pair.clone()),
        CredentialSource::Node => Credentials::Keys(node_keys(config)?),
        CredentialSource::RamRole(role) => Credentials::RamRole(role.clone()),
    })
}

/// Finds what is needed for running ossfs; an error names what the node lacks.
fn prepare(config: &Config) -> Result<Node> {
    let node = Node {
        program: launch::find_program(&config.ossfs)?,
        supervisor: launch::choose(config.launcher)?,
        ca_bundle: config.ca_bundle.as_deref().map(ca_bundle).transpose()?,
        selinux: config.se_linux_context.is_some() && selinux::is_on(),
    };
    if config.se_linux_context.is_some() && !node.selinux {
        log::info!("seLinuxContext of the node configuration is left out: SELinux is off");
    }
    // Opening it also has the kernel load the module.
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|e| {
            anyhow!("open /dev/fuse: {e}: load the fuse module on this node (modprobe fuse)")
        })?;
    Ok(node)
}

fn attach(
    target: &Target,
    request: &MountRequest,
    credentials: &Credentials,
    config: &Config,
    node: &Node,
    deadline: Deadline,
) -> Result<()> {
    let state = StateDirectory::make(&config.state_dir)?;
    let volume = state.volume(&identity(request, credentials, target));
    let _target_lock = state.lock_target(target, deadline)?;
    state.check_drain()?;
    let directory = Directory::open(target.path())?.ok_or_else(|| {
        anyhow!(
            "TARGET {} does not exist: kubelet creates it before it calls mount",
            target.as_str()
        )
    })?;
    if is_already_mounted(target, &directory, &state, &volume, deadline)? {
        return Ok(());
    }
    for other in state.all()? {
        // A call that was killed left it, under options or keys that were changed since.
        if other.id() != volume.id() && other.is_registered(target) {
            release(&other, target, Shutdown::Graceful, deadline)?;
        }
    }

    let lock = volume.lock(deadline)?;
    volume.check_format()?;
    ensure::wait_for_predecessor(&volume, deadline)?;
    // First of all: a call that is killed after this leaves a volume that can be found.
    volume.register(target)?;
    failpoint::reach("mount: registered");
    let attached = record(
        &volume,
        request,
        credentials,
        &state,
        node,
        config,
        deadline,
    )
    .and_then(|()| ensure::ensure_served(&volume, &lock, deadline))
    .and_then(|()| bind_target(&volume, &directory));
    failpoint::reach("mount: bound");
    if attached.is_err() {
        log_failed_cleanup(
            "a failed mount",
            &volume,
            give_up(&volume, target, deadline),
        );
    }
    attached
}

/// Records how `volume`, whose lock is held, is served, unless it is served already.
fn record(
    volume: &Volume,
    request: &MountRequest,
    credentials: &Credentials,
    state: &StateDirectory,
    node: &Node,
    config: &Config,
    deadline: Deadline,
) -> Result<()> {
    // No start although its daemon runs: an unmount was killed as it ended the volume.
    if volume.running_daemon()?.is_none() || volume.read_start()?.is_none() {
        if let Credentials::Keys(pair) = credentials {
            let line = pair.passwd_line(request.location.bucket.as_str());
            root_only::write(&volume.passwd_file(), line.as_bytes())?;
        }
        let uid = uid::allocate(state, volume, deadline)?;
        let (start, plan, reach) = plan::plan(request, credentials, volume, uid, node, config);
        plan::make_directories(&plan, &reach)?;
        volume.write_plan(&plan)?;
        volume.write_start(&start)?;
        let _since = volume.clear_abandoned()?;
    }
    failpoint::reach("mount: recorded");
    Ok(())
}

/// Takes back what a failed mount call has recorded.
fn give_up(volume: &Volume, target: &Target, deadline: Deadline) -> Result<()> {
    volume.unregister(target)?;
    if !volume.is_used()? {
        remove(volume, Shutdown::Force, deadline)?;
    }
    Ok(())
}

/// Whether the volume is mounted at `target` already, so that there is nothing to do. An error if
/// something else is there; a dead mount of this driver or of the old one is no obstacle, the new one
/// is mounted over it.
fn is_already_mounted(
    target: &Target,
    directory: &Directory,
    state: &StateDirectory,
    volume: &Volume,
    deadline: Deadline,
) -> Result<bool> {
    let path = target.as_str();
    if !directory.is_mount_point()? {
        if !is_empty(target.path())? {
            bail!(
                "TARGET {path} is not empty: the mount would hide files that are on the node's disk"
            );
        }
        return Ok(false);
    }
    let table = MountTable::read()?;
    let Some(top) = table.top(target.path()) else {
        return Ok(false);
    };
    if !top.is_ossfs() {
        bail!(
            "TARGET {path} already has another mount: {} of type {}",
            top.source,
            top.fs_type
        );
    }
    let staging = table.top(&volume.staging());
    let ours = volume.is_registered(target) && staging.is_some_and(|s| s.device == top.device);
    let another = !ours && state.all()?.iter().any(|other| other.is_registered(target));
    match probe::health(target.path(), &volume.probe_lock(), deadline)? {
        Health::Dead => Ok(false),
        Health::Serving(_) if another => {
            bail!(
                "TARGET {path} has this volume mounted with other options or keys: unmount it first"
            )
        }
        Health::Serving(_) => Ok(true),
        Health::Unusable(how) => bail!("TARGET {path} has an ossfs mount, but {how}"),
        Health::Unresponsive => bail!("TARGET {path} has an ossfs mount that does not respond"),
    }
}

fn is_empty(path: &Path) -> Result<bool> {
    let mut entries =
        std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    Ok(entries.next().is_none())
}

/// Binds the volume to its target.
fn bind_target(volume: &Volume, target: &Directory) -> Result<()> {
    let staging = Directory::open(&volume.staging())?.context("the staging directory is gone")?;
    // Checked on the open directory: if ossfs exits right here, the bind fails. It never binds the
    // plain directory, where a Pod would write to the node's disk.
    if !staging.is_mount_point()? {
        bail!("ossfs exited immediately after mounting");
    }
    bind(&staging, target)
}

/// The real path of the certificates in `path`, which root alone can change and ossfs, which is not
/// root, can read.
fn ca_bundle(path: &Path) -> Result<PathBuf> {
    let checked = || -> Result<PathBuf> {
        let real = path.canonicalize()?;
        if root_only::check_trusted(&real)?.mode() & 0o004 == 0 {
            bail!("ossfs, which is not root, cannot read it: mode 0644 is expected");
        }
        Ok(real)
    };
    checked().with_context(|| {
        format!(
            "read the certificates {} (caBundle of the node configuration)",
            path.display()
        )
    })
}

/// The node's key pair, from the files that the configuration names.
fn node_keys(config: &Config) -> Result<KeyPair> {
    let default = NodeCredentials::default();
    let files = config.node_credentials.as_ref().unwrap_or(&default);
    let read = |path: &Path| {
        root_only::read_trusted(path)
            .map(Zeroizing::new)
            .with_context(|| format!("read the node's key file {}", path.display()))
    };
    let (id, secret) = (read(&files.ak_id_file)?, read(&files.ak_secret_file)?);
    KeyPair::parse(&id, &secret).map_err(|(half, error)| anyhow!("the node's {half} {error}"))
}
