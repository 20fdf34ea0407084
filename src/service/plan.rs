//! How a volume is served, from what its Pod asks for and what the node has.

use crate::config::{Config, Sandbox};
use crate::credentials::Credentials;
use crate::ossfs::arguments::arguments;
use crate::request::MountRequest;
use crate::serve::plan::{LogPlan, Plan};
use crate::service::directories::{self, Reach};
use crate::service::mount_options::mount_options;
use crate::state::start::{Start, Supervisor};
use crate::state::volume::Volume;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What the node has for serving a volume.
pub(crate) struct Node {
    pub(crate) program: PathBuf,
    pub(crate) supervisor: Supervisor,
    /// The file that `caBundle` of the configuration names, by its real path.
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Whether mounts can have labels of SELinux; a kernel without it refuses them.
    pub(crate) selinux: bool,
}

/// What ossfs's environment has for reaching stores: libcurl reads the proxy (libcurl-env(3)), and
/// ossfs itself the name of the file with certificates.
fn environment(node: &Node, config: &Config) -> BTreeMap<String, String> {
    let ca_bundle = node.ca_bundle.as_deref().and_then(Path::to_str);
    [
        ("https_proxy", config.https_proxy.as_deref()),
        ("no_proxy", Some(config.no_proxy.as_str())),
        ("CURL_CA_BUNDLE", ca_bundle),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        let value = value.filter(|value| !value.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    })
    .collect()
}

/// How ossfs is started for `volume`, and served as the user `uid`; and what of the node that may reach.
pub(crate) fn plan(
    request: &MountRequest,
    credentials: &Credentials,
    volume: &Volume,
    uid: u32,
    node: &Node,
    config: &Config,
) -> (Start, Plan, Reach) {
    let (options, reach) = directories::reach(&request.options, volume.id());
    let start = Start::new(
        node.program.clone(),
        arguments(
            &request.location,
            &volume.staging(),
            &options,
            request.read_only,
            credentials,
            &volume.passwd_file(),
        ),
        request.read_only,
        node.supervisor.clone(),
    );
    let mut plan = Plan::new(
        start.program.clone(),
        start.arguments.clone(),
        "ossfs".to_owned(),
    );
    plan.relay = request.relay;
    plan.mount = mount_options(&start.arguments, start.read_only);
    if let Some(label) = &config.se_linux_context
        && node.selinux
    {
        plan.mount
            .labels
            .insert("context".to_owned(), label.clone());
    }
    plan.hung_after_seconds = config.hung_after.as_secs();
    plan.request_timeout_seconds = config.request_timeout.map(|time| time.as_secs());
    plan.memory_limit = config.memory_limit;
    plan.temporary = config.temporary_dir.join(volume.id());
    if start.supervisor != Supervisor::Unit {
        // Under systemd it is the journal.
        plan.log = Some(LogPlan {
            file: config.log_file.clone(),
            level: config.log_level,
        });
    }
    plan.sandbox.on = config.sandbox == Sandbox::On;
    plan.sandbox.uid = uid;
    if matches!(credentials, Credentials::Keys(_)) {
        plan.sandbox.key_file = Some(volume.passwd_file());
    }
    let read = reach.read.iter().map(|path| (path.clone(), false));
    let written = reach.written.iter().chain(&reach.directories);
    let ca_bundle = node.ca_bundle.iter().map(|path| (path.clone(), false));
    plan.sandbox.environment = environment(node, config);
    plan.sandbox.reachable = read
        .chain(ca_bundle)
        .chain(written.map(|path| (path.clone(), true)))
        .collect();
    plan.emptied = reach.directories.clone();
    (start, plan, reach)
}

/// Makes the directories of `plan` and of `reach` that belong to the user that ossfs runs as.
pub(crate) fn make_directories(plan: &Plan, reach: &Reach) -> Result<()> {
    directories::make_below_root(&plan.temporary, plan.sandbox.uid)?;
    directories::make(reach, plan.sandbox.uid)
}
