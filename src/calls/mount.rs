//! The call `mount TARGET JSON`: a bucket is mounted at TARGET, or nothing has changed.

use super::heal;
use super::volumes::{self, Ending};
use crate::config::{self, Config, NodeCredentials};
use crate::credentials::KeyPair;
use crate::deadline::Deadline;
use crate::fault;
use crate::mounts;
use crate::mounts::directory::Directory;
use crate::mounts::table::MountTable;
use crate::ossfs::arguments::{CredentialOption, arguments};
use crate::ossfs::launch::{self, Start, Under};
use crate::ossfs::probe::{self, Health};
use crate::private;
use crate::request::{Credentials, MountRequest};
use crate::target::Target;
use crate::volume::{EffectiveCredentials, StateDirectory, Volume, identity};
use anyhow::{Context as _, Result, anyhow, bail};
use std::path::Path;
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
    for note in &request.notes {
        log::info!("{note}");
    }
    let keys = match &request.credentials {
        Credentials::Given(_) | Credentials::RamRole(_) => None,
        Credentials::Node => Some(node_keys(config)?),
    };
    let credentials = match (&request.credentials, &keys) {
        (Credentials::Given(pair), _) | (Credentials::Node, Some(pair)) => {
            subject.push_str(&format!(" key={}", pair.short_id()));
            EffectiveCredentials::Keys(pair)
        }
        (Credentials::RamRole(role), _) => EffectiveCredentials::RamRole(role),
        (Credentials::Node, None) => bail!("the node's key pair is missing"),
    };
    let mounted = prepare(config)
        .and_then(|node| attach(target, &request, &credentials, config, &node, deadline));
    match &credentials {
        // ossfs's words are not ours to trust with a key.
        EffectiveCredentials::Keys(pair) => {
            mounted.map_err(|e| anyhow!("{}", pair.redact(&format!("{e:#}"))))
        }
        EffectiveCredentials::RamRole(_) => mounted,
    }
}

/// What the node has for running ossfs.
struct Node {
    program: std::path::PathBuf,
    under: Under,
}

/// Finds what is needed for running ossfs; an error says what the node lacks.
fn prepare(config: &Config) -> Result<Node> {
    let node = Node {
        program: launch::find_program(&config.ossfs)?,
        under: launch::choose(config.launcher)?,
    };
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
    credentials: &EffectiveCredentials,
    config: &Config,
    node: &Node,
    deadline: Deadline,
) -> Result<()> {
    let state = StateDirectory::prepare(&config.state_dir)?;
    let alone = (!request.share).then_some(target);
    let volume = state.volume(&identity(request, credentials, alone));
    let _target_lock = state.lock_target(target, deadline)?;
    state.check_drain()?;
    let directory = Directory::open(target.path())?.ok_or_else(|| {
        anyhow!(
            "TARGET {} does not exist: kubelet makes it",
            target.as_str()
        )
    })?;
    if carries_volume(target, &directory, &state, &volume, deadline)? {
        return Ok(());
    }
    for other in state.all()? {
        // A call that was killed left it, under options or keys that were changed since.
        if other.id() != volume.id() && other.is_registered(target) {
            volumes::release(&other, target, Ending::Finish, deadline)?;
        }
    }

    let (keys, credential_file) = match credentials {
        EffectiveCredentials::Keys(pair) => (Some(*pair), volume.passwd_file()),
        EffectiveCredentials::RamRole(_) => (None, volume.passwd_file()),
    };
    let option = match credentials {
        EffectiveCredentials::Keys(_) => CredentialOption::PasswdFile(&credential_file),
        EffectiveCredentials::RamRole(role) => CredentialOption::RamRole(role),
    };
    let start = Start {
        arguments: arguments(
            &request.location,
            &volume.staging(),
            &request.options,
            request.read_only,
            &option,
        ),
        program: node.program.clone(),
        read_only: request.read_only,
        under: node.under.clone(),
    };
    let lock = volume.lock(deadline)?;
    // First of all: a call that is killed behind this line leaves a volume that can be found.
    volume.register(target)?;
    fault::point("mount: registered");
    // Not known although its daemon runs: an unmount was killed as it ended the volume.
    if volume.daemon()?.is_none() || volume.find_start()?.is_none() {
        if let Some(keys) = keys {
            let line = keys.passwd_line(request.location.bucket.as_str());
            private::write(&volume.passwd_file(), line.as_bytes())?;
        }
        volume.write_start(&start)?;
    }
    fault::point("mount: written down");
    let attached = volumes::serve(&volume, &lock, deadline)
        .and_then(|is_new| show(&volume, &directory).map(|()| is_new));
    fault::point("mount: shown");
    match &attached {
        // Its daemon before has died: the Pods that have the volume already get the new one, too.
        Ok(true) if volume.targets()?.len() > 1 => {
            if let Err(e) = heal::replace_everywhere(&volume, deadline) {
                log::warn!("volume {}: {e:#}", volume.id());
            }
        }
        Ok(_) => {}
        Err(_) => {
            volume.unregister(target)?;
            if !volume.is_used()? {
                volumes::remove(&volume, Ending::Kill, deadline)?;
            }
        }
    }
    attached.map(drop)
}

/// Whether `target` shows the volume already, so that there is nothing to do. An error if something
/// else is there; a dead mount of ours or of the old driver's is no obstacle, the new one covers it.
fn carries_volume(
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
            "TARGET {path} carries another mount: {} of type {}",
            top.source,
            top.fs_type
        );
    }
    let staging = table.top(&volume.staging());
    let ours = volume.is_registered(target) && staging.is_some_and(|s| s.device == top.device);
    let another = !ours && state.all()?.iter().any(|other| other.is_registered(target));
    match probe::health(target.path(), deadline)? {
        Health::Dead => Ok(false),
        Health::Serving(_) if another => {
            bail!("TARGET {path} carries this volume with other options or keys: unmount it first")
        }
        Health::Serving(_) => Ok(true),
        Health::Unusable(how) => bail!("TARGET {path} carries an ossfs mount, but {how}"),
        Health::Silent => bail!("TARGET {path} carries an ossfs mount that does not answer"),
    }
}

fn is_empty(path: &Path) -> Result<bool> {
    let mut entries =
        std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
    Ok(entries.next().is_none())
}

/// Shows the volume at its target.
fn show(volume: &Volume, target: &Directory) -> Result<()> {
    let staging = Directory::open(&volume.staging())?.context("the staging directory is gone")?;
    // Checked on what is open: should ossfs end right here, the bind fails, and never shows the
    // plain directory, where a Pod would write to the node's disk.
    if !staging.is_mount_point()? {
        bail!("ossfs has ended right behind its start");
    }
    mounts::bind(&staging, target)
}

/// The node's key pair, from the files that the configuration names.
fn node_keys(config: &Config) -> Result<KeyPair> {
    let default = NodeCredentials::default();
    let files = config.node_credentials.as_ref().unwrap_or(&default);
    let read = |path: &Path| {
        config::read_trusted(path)
            .map(Zeroizing::new)
            .with_context(|| format!("read the node's key file {}", path.display()))
    };
    let (id, secret) = (read(&files.ak_id_file)?, read(&files.ak_secret_file)?);
    KeyPair::parse(&id, &secret).map_err(|(half, error)| anyhow!("the node's {half} {error}"))
}
