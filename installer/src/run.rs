//! The DaemonSet's processes: the first installs and exits, the other installs, then waits for changes
//! and repairs the driver.

use crate::args::Settings;
use crate::find::Found;
use crate::finding::{Finding, Severity};
use crate::heal::{self, Heal};
use crate::heartbeat::Heartbeat;
use crate::packages::{self, Packages};
use crate::pass::{self, Pass};
use crate::repairs::{MAX_REPAIRS, REPAIR_TIME, Repairs};
use crate::watch::{Stop, Wake, Watch};
use crate::{checks, node, state};
use anyhow::Result;
use std::time::{Duration, Instant};

/// How long a pass may take: the lock of the plugin directory, and the new driver tried out.
const PASS_LIMIT: Duration = Duration::from_secs(60);
/// How long after a pass a change is looked at, at the earliest: one program that changes files again and
/// again, as the installer does itself, costs two passes a second.
const BETWEEN_PASSES: Duration = Duration::from_millis(500);
/// The last line of the log.
const STOPPED: &str = "stopped; the driver stays installed";

/// Installs the driver and repairs it until SIGTERM or SIGINT, after which it stays installed. What
/// is wrong with the node is logged, and checked again: only what keeps this process itself from
/// working is an error.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let stop = Stop::catch()?;
    state::restrict_mode(settings);
    let mut heartbeat = Heartbeat::start(settings)?;
    let record = heartbeat.place().clone();
    stop.end_within(settings.grace, 0, move || {
        record.remove();
        log::info!("{STOPPED}");
    })?;
    let mut watch = Watching::default();
    let mut driver = Driver::default();
    let mut host = HostChecks::default();
    let mut next_check = Instant::now();
    loop {
        watch.open();
        let pause = driver.repairs.pause();
        if pause.is_none() {
            heartbeat.beat(PASS_LIMIT);
            driver.pass(settings, watch.0.as_ref());
        }
        let passed = Instant::now();
        // On its period, whatever events there are: none reports a change on the host, and each check
        // costs processes.
        if passed >= next_check {
            if let Some(found) = &driver.found {
                host.check(settings, found, driver.is_installed, &mut heartbeat);
                let warnings = host.warnings.iter().chain(&driver.replacement);
                heartbeat.warn(warnings.map(|finding| finding.text.clone()));
            }
            next_check = Instant::now() + settings.period;
        }
        let until_check = next_check.saturating_duration_since(Instant::now());
        let (watched, limit) = match driver.pause() {
            Some(pause) => (None, pause.min(until_check)),
            None => (watch.0.as_ref().map(Watch::source), until_check),
        };
        heartbeat.beat(limit);
        let mut wake = stop.wait(watched.as_slice(), limit)?;
        if wake == Wake::Changed {
            wake = stop.wait(&[], BETWEEN_PASSES.saturating_sub(passed.elapsed()))?;
        }
        if wake == Wake::Stop {
            log::info!("{STOPPED}");
            return Ok(());
        }
    }
}

/// Installs the driver, and does nothing else on the node: for what runs before `run`, which repeats
/// the checks. What keeps the driver from being installed is logged, and no error.
pub(crate) fn once(settings: &Settings) {
    state::restrict_mode(settings);
    let pass = pass::install(settings, None, None);
    log_new(&pass.findings, &mut Vec::new());
}

/// What reports changes; nothing on a node that has no instance of inotify(7) left.
#[derive(Default)]
struct Watching(Option<Watch>);

impl Watching {
    /// Opens it if that has failed so far, and drops the events until now.
    fn open(&mut self) {
        if self.0.is_none() {
            self.0 = Watch::new()
                .inspect_err(|e| {
                    log::warn!("{e:#}: changes are noticed only every --period seconds");
                })
                .ok();
        }
        self.0.iter().for_each(Watch::drain);
    }
}

/// The driver of the node, and what has happened to it.
#[derive(Default)]
struct Driver {
    found: Option<Found>,
    is_installed: bool,
    /// Whether the last pass failed, and since when it is told that no more attempts are made.
    failed: bool,
    told: bool,
    repairs: Repairs,
    /// How often another build was at the driver's path after this process had installed its own.
    replaced: usize,
    replacement: Option<Finding>,
    logged: Vec<Finding>,
}

impl Driver {
    fn pass(&mut self, settings: &Settings, watch: Option<&Watch>) {
        let before = self.found.as_ref().map(|found| found.path.clone());
        let Pass {
            mut findings,
            found,
            driver,
            installed,
            replaced,
            failed,
        } = pass::install(settings, watch, before.as_deref());
        if let (None, Some(found)) = (&before, &found) {
            // From here on it is known where kubelet's driver checks for the marker.
            state::end_drain(settings, &found.host);
        }
        if installed || failed {
            self.repairs.count();
        }
        self.replaced += usize::from(self.is_installed && replaced);
        if self.replaced >= 2 {
            self.replacement = Some(Finding::warning(
                "another build of the driver was installed over this one more than once: another \
                 installer is at work on this node, as the DaemonSet of the old driver, which installs \
                 its own at each start: delete it first (MIGRATING.md)",
            ));
        }
        findings.extend(self.replacement.clone());
        log_new(&findings, &mut self.logged);
        self.is_installed |= driver.is_some();
        self.failed = failed;
        self.told = false;
        // While kubelet is restarted, the directory of before holds.
        self.found = found.or_else(|| self.found.take());
    }

    /// How long to leave the driver as it is, which is logged once.
    fn pause(&mut self) -> Option<Duration> {
        let pause = self.repairs.pause()?;
        let (seconds, time) = (pause.as_secs(), REPAIR_TIME.as_secs());
        if !self.told {
            match self.failed {
                true => log::warn!(
                    "installing the driver failed {MAX_REPAIRS} times within {time} s: the next \
                     attempt is in {seconds} s"
                ),
                false => log::warn!(
                    "the driver was repaired {MAX_REPAIRS} times within {time} s: another program \
                     changes it; the next check is in {seconds} s"
                ),
            }
        }
        self.told = true;
        Some(pause)
    }
}

/// What is done on the host besides the driver.
#[derive(Default)]
struct HostChecks {
    packages: Packages,
    heal: Heal,
    /// What `check` does not find by itself.
    warnings: Vec<Finding>,
    logged: Vec<Finding>,
}

impl HostChecks {
    fn check(
        &mut self,
        settings: &Settings,
        found: &Found,
        is_installed: bool,
        heartbeat: &mut Heartbeat,
    ) {
        self.warnings = node::prepare(settings, found);
        heartbeat.beat(packages::LIMIT);
        self.warnings.extend(self.packages.install(settings, found));
        if is_installed {
            heartbeat.beat(heal::LIMIT);
            self.warnings.extend(self.heal.run(settings, found));
        }
        heartbeat.beat(PASS_LIMIT);
        let mut findings = self.warnings.clone();
        findings.extend(checks::host(settings, found));
        log_new(&findings, &mut self.logged);
        self.warnings
            .retain(|finding| finding.severity == Severity::Warning);
    }
}

/// Logs the findings that are not in `logged`, those of the last time, and replaces it.
fn log_new(findings: &[Finding], logged: &mut Vec<Finding>) {
    let mut new: Vec<&Finding> = Vec::new();
    for finding in findings.iter().filter(|finding| !logged.contains(finding)) {
        if !new.contains(&finding) {
            finding.log();
            new.push(finding);
        }
    }
    *logged = findings.to_vec();
}
