//! One pass over the node: what is wrong, and with `install` its repair.

use crate::args::Settings;
use crate::directory::Directory;
use crate::find::{self, Found};
use crate::finding::{Finding, Severity};
use crate::host::as_host_sees;
use crate::inspect::{State, inspect};
use crate::install;
use crate::watch::Watch;
use crate::{checks, driver, heal, heartbeat, ready};
use alicloud_oss::kubelet::{DRIVER_DIRECTORY, DRIVER_FILE};
use alicloud_oss::state::init_record::InitRecord;
use alicloud_oss::state::layout::INIT_RECORD;
use alicloud_oss::text::log_line;
use anyhow::{Context as _, Result};
use std::cmp::Reverse;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// The result of a pass.
pub(crate) struct Pass {
    pub(crate) findings: Vec<Finding>,
    /// The plugin directory, if it is known.
    pub(crate) found: Option<Found>,
    /// The driver, if it is installed as it must be.
    pub(crate) driver: Option<PathBuf>,
    /// Whether this pass installed it.
    pub(crate) installed: bool,
    /// Whether it replaced another build, or what else somebody had put there.
    pub(crate) replaced: bool,
    /// Whether this pass tried to, and failed. Its attempt has changed the plugin directory, too.
    pub(crate) failed: bool,
}

impl Pass {
    fn add(&mut self, result: Result<()>) {
        if let Err(e) = result {
            self.findings
                .push(Finding::blocks_installing(format!("{e:#}")));
        }
    }
}

/// Installs the driver unless it is installed as it must be. What is to be watched is added to
/// `watch` first, so that no change meanwhile is missed. `before` is the plugin directory of the last pass.
pub(crate) fn install(settings: &Settings, watch: Option<&Watch>, before: Option<&Path>) -> Pass {
    examine(settings, watch, true, before)
}

/// What is wrong on this node, one line each, and whether volumes can be mounted by this driver.
pub(crate) fn check(settings: &Settings) -> (String, bool) {
    let mut pass = examine(settings, None, false, None);
    if let Some(found) = &pass.found {
        pass.findings.extend(checks::host(settings, found));
        // `run` has just had them served again where it can.
        pass.findings
            .extend(checks::unserved(settings, &found.host));
        match (
            &pass.driver,
            loaded(settings, found, pass.driver.as_deref()),
        ) {
            (Some(_), Ok(None)) | (None, _) => {}
            (Some(_), Ok(Some(problem))) => pass.findings.push(Finding::blocks_mounting(problem)),
            (Some(_), Err(e)) => pass
                .findings
                .push(Finding::blocks_mounting(format!("{e:#}"))),
        }
    }
    pass.findings.extend(heartbeat::findings(settings));
    let ready = pass
        .findings
        .iter()
        .all(|finding| finding.severity <= Severity::Warning);
    if ready {
        let loaded = "kubelet has loaded this driver";
        pass.findings.push(Finding::note(loaded));
    }
    (report(settings, pass.findings), ready)
}

/// One line for each of `findings`, the gravest first: kubelet shows what a probe prints in an Event of
/// the Pod, and cuts it. Without a time, so that equal ones are one Event.
fn report(settings: &Settings, mut findings: Vec<Finding>) -> String {
    findings.sort_by_key(|finding| Reverse(finding.severity));
    let is_first = |n: usize| !findings[..n].contains(&findings[n]);
    (0..findings.len())
        .filter(|n| is_first(*n))
        .map(|n| &findings[n])
        .map(|finding| {
            let text = as_host_sees(&finding.to_string(), settings.host_root.as_deref());
            log_line(&text) + "\n"
        })
        .collect()
}

/// Why kubelet has not loaded the driver at `path`; nothing if it has.
fn loaded(settings: &Settings, found: &Found, path: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = path else {
        return Ok(None);
    };
    let since = std::fs::metadata(path)
        .with_context(|| format!("stat {}", path.display()))?
        .ctime();
    let record = found.host.locate(&settings.state_dir.join(INIT_RECORD))?;
    let record = InitRecord::read(&record)?;
    let build = driver::build(path)?;
    Ok(ready::problem(
        record.as_ref(),
        &build,
        // Before 1970 it is as good as in it.
        since.try_into().unwrap_or(0),
        &found.kubelets,
    ))
}

fn examine(settings: &Settings, watch: Option<&Watch>, act: bool, before: Option<&Path>) -> Pass {
    let mut pass = Pass {
        findings: Vec::new(),
        found: None,
        driver: None,
        installed: false,
        replaced: false,
        failed: false,
    };
    match find::find(settings, before) {
        Ok(mut found) => {
            pass.findings.append(&mut found.findings);
            let result = in_directory(settings, &found, watch, act, &mut pass);
            pass.failed = result.is_err();
            pass.add(result);
            pass.found = Some(found);
        }
        Err(e) => pass.add(Err(e)),
    }
    pass
}

fn in_directory(
    settings: &Settings,
    found: &Found,
    watch: Option<&Watch>,
    act: bool,
    pass: &mut Pass,
) -> Result<()> {
    let located = found
        .host
        .locate(&found.path)
        .with_context(|| format!("resolve {}", found.path.display()))?;
    let driver_directory = located.join(DRIVER_DIRECTORY);
    if let Some(watch) = watch {
        // The directories above it, too: any of them may be renamed or replaced.
        for directory in [located.parent(), Some(&located), Some(&driver_directory)] {
            directory.into_iter().for_each(|path| watch.add(path));
        }
    }
    if act && !located.exists() {
        // kubelet makes it itself when it starts (`pkg/volume/flexvolume/probe.go`).
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(&located)
            .with_context(|| format!("create the plugin directory {}", found.path.display()))?;
        watch.into_iter().for_each(|watch| watch.add(&located));
    }
    let plugins = Directory::open(&located)?.with_context(|| {
        format!(
            "the plugin directory {} does not exist ({})",
            found.path.display(),
            found.how
        )
    })?;
    let directory =
        checks::directory(&plugins).with_context(|| format!("stat {}", found.path.display()))?;
    pass.findings.extend(directory);
    if pass
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::BlocksInstalling)
    {
        return Ok(());
    }
    let path = install::path(&plugins);
    let state = inspect(&plugins, &settings.driver)?;
    let replaced = match &state {
        State::Wrong(_) if act => checks::replaced(settings, &path),
        _ => None,
    };
    let replaces_old = replaced.is_some();
    pass.findings.extend(replaced);
    if !act {
        match state {
            State::Current => pass.driver = Some(path),
            wrong => pass.findings.push(Finding::blocks_mounting(format!(
                "{wrong} in {}: oss-installer run repairs it",
                found.path.display()
            ))),
        }
        return Ok(());
    }
    if state != State::Current || install::has_leftovers(&plugins)? {
        let was = install::install(&plugins, &settings.driver)
            .with_context(|| format!("install into {}", found.path.display()))?;
        watch
            .into_iter()
            .for_each(|watch| watch.add(&driver_directory));
        pass.installed = was != State::Current;
        pass.replaced = matches!(was, State::Wrong(_));
        if pass.installed {
            log::info!(
                "installed {} (before: {was}; plugin directory: {})",
                found
                    .path
                    .join(DRIVER_DIRECTORY)
                    .join(DRIVER_FILE)
                    .display(),
                found.how
            );
        }
    }
    if pass.installed && replaces_old {
        heal::adopt(settings, found);
    }
    pass.driver = Some(path);
    Ok(())
}
