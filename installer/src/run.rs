//! The DaemonSet's processes: the first installs and exits, the other installs, then waits for changes
//! and repairs the driver.

use crate::args::Settings;
use crate::finding::Finding;
use crate::heal::Heal;
use crate::watch::{Stop, Wake, Watch};
use crate::{checks, node, packages, pass, state};
use anyhow::Result;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More repairs than this within `REPAIR_TIME` are a conflict, with another installer perhaps: kubelet
/// would run init each time. As many that fail are a driver that does not work here.
const MAX_REPAIRS: usize = 5;
const REPAIR_TIME: Duration = Duration::from_secs(60);

/// Installs the driver and repairs it until SIGTERM or SIGINT, after which it stays installed. What
/// is wrong with the node is logged, and checked again: only what keeps this process itself from
/// working is an error.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    let stop = Stop::catch()?;
    state::restrict_mode(settings);
    let mut watch = None;
    let mut directory = None;
    let mut logged = Vec::new();
    let mut repairs = Repairs::default();
    let mut heal = Heal::default();
    let mut wake = Wake::Time;
    loop {
        if watch.is_none() {
            watch = Watch::new()
                .inspect_err(|e| {
                    log::warn!("{e:#}: changes are noticed only every --period seconds")
                })
                .ok();
        }
        watch.iter().for_each(Watch::drain);
        let pass = pass::install(settings, watch.as_ref(), directory.as_deref());
        if let Some(found) = &pass.found {
            if directory.is_none() {
                // From here on it is known where kubelet's driver checks for the marker.
                state::end_drain(settings, &found.host);
            }
            directory = Some(found.path.clone());
        }
        if pass.installed || pass.failed {
            repairs.count();
        }
        let mut findings = pass.findings;
        if let Some(found) = pass.found.as_ref().filter(|_| wake == Wake::Time) {
            // No event reports a change on the host, and a check of ossfs costs a process.
            node::prepare(settings, found);
            packages::install(settings, found);
            findings.extend(checks::host(settings, found));
            if pass.driver.is_some() {
                heal.run(settings, found);
            }
            log_new(&findings, &mut logged);
        } else {
            log_new(&findings, &mut logged.clone());
        }
        let (watched, limit) = match repairs.pause() {
            Some(pause) => {
                let (seconds, time) = (pause.as_secs(), REPAIR_TIME.as_secs());
                match pass.failed {
                    true => log::warn!(
                        "installing the driver failed {MAX_REPAIRS} times within {time} s: the \
                         next attempt is in {seconds} s"
                    ),
                    false => log::warn!(
                        "the driver was repaired {MAX_REPAIRS} times within {time} s: another \
                         program changes it; the next check is in {seconds} s"
                    ),
                }
                (None, pause)
            }
            None => (watch.as_ref().map(Watch::source), settings.period),
        };
        wake = stop.wait(watched.as_slice(), limit)?;
        if wake == Wake::Stop {
            log::info!("stopped; the driver stays installed");
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

/// Logs the findings that are not in `logged`, those of the last time, and replaces it.
fn log_new(findings: &[Finding], logged: &mut Vec<Finding>) {
    for finding in findings.iter().filter(|finding| !logged.contains(finding)) {
        finding.log();
    }
    *logged = findings.to_vec();
}

/// When the driver was last repaired, or could not be.
#[derive(Default)]
struct Repairs(VecDeque<Instant>);

impl Repairs {
    fn count(&mut self) {
        self.0.push_back(Instant::now());
        if self.0.len() > MAX_REPAIRS {
            self.0.pop_front();
        }
    }

    /// How long to leave the driver as it is, after too many repairs.
    fn pause(&self) -> Option<Duration> {
        let first = self.0.front().filter(|_| self.0.len() == MAX_REPAIRS)?;
        let pause = REPAIR_TIME.saturating_sub(first.elapsed());
        (!pause.is_zero()).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_REPAIRS, Repairs};

    #[test]
    fn a_conflict_makes_a_pause() {
        let mut repairs = Repairs::default();
        for _ in 1..MAX_REPAIRS {
            repairs.count();
            assert_eq!(repairs.pause(), None);
        }
        repairs.count();
        assert!(repairs.pause().is_some());
    }
}
