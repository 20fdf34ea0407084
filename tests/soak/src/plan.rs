//! What happens, in which order and with which pauses: all of it follows from the seed.

use crate::ledger::Content;
use fastrand::Rng;
use nix::sys::signal::Signal;
use std::time::Duration;

/// How many Pods there are.
pub(crate) const PODS: usize = 24;
/// How many files each of them writes.
pub(crate) const FILES: usize = 3;
/// The longest that a store fault lasts, or a stopped ossfs stays stopped, in milliseconds.
const LONGEST: u64 = 3000;

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A Pod is wanted on the node, or no longer. The first call for it is killed after that time.
    Want {
        pod: usize,
        wanted: bool,
        kill: Option<Duration>,
    },
    /// The same for many Pods at once.
    Burst { pods: Vec<(usize, bool)> },
    /// A Pod writes a file, with or without fsync(2) before close(2).
    Write {
        pod: usize,
        file: usize,
        content: Content,
        sync: bool,
    },
    /// A Pod removes a file.
    Remove { pod: usize, file: usize },
    /// A signal for a process of the volume of a Pod, or for all of them.
    Kill {
        pod: usize,
        victim: Victim,
        signal: Signal,
    },
    /// SIGSTOP for the ossfs of a Pod's volume, and SIGCONT after a while; without a while it is
    /// hung until its volume's process has replaced it.
    Stop {
        pod: usize,
        resume: Option<Duration>,
    },
    /// `oss heal`, which is killed after that time.
    Heal { kill: Option<Duration> },
    /// kubelet ends with all calls under way, and starts knowing nothing.
    RestartKubelet,
    /// Another file takes the driver's place.
    Upgrade { build: usize },
    /// The store goes wrong for a while.
    Fault { fault: Fault, time: Duration },
    /// The Secret of a volume gets another key pair.
    Rotate { volume: usize },
}

/// Which of the processes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Ossfs,
    /// The process that serves, at the other end of ossfs's socket.
    Child,
    /// The process that keeps the connection, and with it all the others: the mount is dead.
    Parent,
}

/// A way for the store to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Delay(Duration),
    Status(u16),
    /// Connections are closed without an answer.
    Close,
    /// Requests are taken and not answered.
    Hang,
    /// The key pairs of all volumes are unknown.
    UnknownKeys,
    /// All connections are reset, once.
    Reset,
    /// Nothing listens, as when the store was killed; then it is there again with its data.
    Down,
}

/// An action, and the pause behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) pause: Duration,
}

/// The dice, and what has been asked for so far.
pub(crate) struct Plan {
    dice: Rng,
    wanted: [bool; PODS],
    volumes: usize,
    builds: usize,
}

impl Plan {
    /// The plan that follows from `seed`, for so many volumes and builds of the driver.
    pub(crate) fn new(seed: u64, volumes: usize, builds: usize) -> Self {
        Self {
            dice: Rng::with_seed(seed),
            wanted: [false; PODS],
            volumes,
            builds,
        }
    }

    /// The next round, of so many steps.
    pub(crate) fn round(&mut self, steps: usize) -> Vec<Step> {
        (0..steps)
            .map(|_| Step {
                action: self.action(),
                pause: self.pause(),
            })
            .collect()
    }

    fn action(&mut self) -> Action {
        let anyone = self.dice.usize(..PODS);
        let pod = self.present();
        let file = self.dice.usize(..FILES);
        match self.dice.u32(..100) {
            0..24 => Action::Want {
                pod: anyone,
                wanted: self.turn(anyone),
                kill: self.sometimes(5).then(|| self.time(200, 400_000)),
            },
            24..29 => {
                let count = self.dice.usize(4..=12);
                let pods = self.dice.choose_multiple(0..PODS, count);
                Action::Burst {
                    pods: pods.into_iter().map(|pod| (pod, self.turn(pod))).collect(),
                }
            }
            29..60 => Action::Write {
                pod,
                file,
                content: Content {
                    seed: self.dice.u64(..),
                    bytes: self.bytes(),
                },
                sync: self.dice.bool(),
            },
            60..64 => Action::Remove { pod, file },
            64..75 => self.kill(pod),
            75..79 => Action::Stop {
                pod,
                resume: (!self.sometimes(12)).then(|| self.time(1000, LONGEST * 1000)),
            },
            79..83 => Action::Heal {
                kill: self.dice.bool().then(|| self.time(200, 400_000)),
            },
            83..85 => Action::RestartKubelet,
            85..89 => Action::Upgrade {
                build: self.dice.usize(..self.builds),
            },
            89..96 => Action::Fault {
                fault: self.fault(),
                time: self.time(50_000, LONGEST * 1000),
            },
            _ => Action::Rotate {
                volume: self.dice.usize(..self.volumes),
            },
        }
    }

    /// Mostly for ossfs, and one in eight times for all. SIGTERM ossfs does not hear.
    fn kill(&mut self, pod: usize) -> Action {
        let (victim, signal) = match self.dice.u32(..8) {
            0 => (Victim::Parent, Signal::SIGKILL),
            1 | 2 => (Victim::Child, Signal::SIGKILL),
            3 => (Victim::Ossfs, Signal::SIGSEGV),
            4 => (Victim::Ossfs, Signal::SIGTERM),
            _ => (Victim::Ossfs, Signal::SIGKILL),
        };
        Action::Kill {
            pod,
            victim,
            signal,
        }
    }

    /// A Pod that has been asked for; any if there is none.
    fn present(&mut self) -> usize {
        let present: Vec<usize> = (0..PODS).filter(|pod| self.wanted[*pod]).collect();
        self.dice.choice(present).unwrap_or(0)
    }

    fn turn(&mut self, pod: usize) -> bool {
        self.wanted[pod] = !self.wanted[pod];
        self.wanted[pod]
    }

    fn fault(&mut self) -> Fault {
        match self.dice.u32(..8) {
            0 => Fault::Delay(Duration::from_millis(self.dice.u64(5..400))),
            1 => Fault::Status(500),
            2 => Fault::Status(503),
            3 => Fault::Close,
            4 => Fault::Hang,
            5 => Fault::UnknownKeys,
            6 => Fault::Reset,
            _ => Fault::Down,
        }
    }

    /// Mostly small; one in forty is uploaded in parts.
    fn bytes(&mut self) -> usize {
        match self.dice.u32(..40) {
            0 => self.dice.usize(21 << 20..26 << 20),
            1..5 => self.dice.usize(1 << 16..1 << 20),
            5 => 0,
            _ => self.dice.usize(1..1 << 14),
        }
    }

    fn sometimes(&mut self, one_in: u32) -> bool {
        self.dice.u32(..one_in) == 0
    }

    /// Between two numbers of microseconds; each order of magnitude is as likely as the others.
    fn time(&mut self, least: u64, most: u64) -> Duration {
        let ratio = most as f64 / least as f64;
        Duration::from_micros((least as f64 * ratio.powf(self.dice.f64())) as u64)
    }

    fn pause(&mut self) -> Duration {
        match self.dice.u32(..3) {
            0 => Duration::ZERO,
            _ => self.time(1000, 1_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Plan};

    #[test]
    fn the_seed_decides_everything() {
        let rounds = |seed| {
            let mut plan = Plan::new(seed, 8, 2);
            (plan.round(100), plan.round(100))
        };
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
        let (first, second) = rounds(7);
        assert_ne!(first, second);
    }

    #[test]
    fn pods_come_before_they_go() {
        let mut present = [false; super::PODS];
        for step in Plan::new(1, 8, 2).round(1000) {
            let pods = match step.action {
                Action::Want { pod, wanted, .. } => vec![(pod, wanted)],
                Action::Burst { pods } => pods,
                _ => Vec::new(),
            };
            for (pod, wanted) in pods {
                assert_ne!(present[pod], wanted);
                present[pod] = wanted;
            }
        }
    }
}
