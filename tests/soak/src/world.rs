//! The node as the run sees it: the driver and how it is called, the store and what goes wrong with
//! it, the Pods, and what is known of all that was written.

use crate::daemons::Stopped;
use crate::gate::Gate;
use crate::ledger::Ledger;
use crate::plan::{Fault, PODS};
use crate::pods::Pod;
use crate::report::{Counts, History};
use crate::volumes::{Keys, Paths, SECRET_MARK, VOLUMES};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::thread::sleep;
use std::time::Duration;
use support::{Answer, Killer, Kubelet, Sandbox, Store};

/// The bucket of the sandbox.
pub(crate) const BUCKET: &str = "docker";

pub(crate) struct World<'a> {
    pub(crate) store: &'a Store,
    pub(crate) gate: Gate,
    pub(crate) keys: Keys,
    pub(crate) paths: Paths,
    pub(crate) pods: Vec<Pod>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) stopped: Stopped,
    /// How many Pods are writing or removing a file.
    pub(crate) users: AtomicUsize,
    pub(crate) counts: Counts,
    pub(crate) history: History,
    /// The options that all volumes have in common.
    pub(crate) usual: Value,
    kubelet: Kubelet,
    builds: Vec<PathBuf>,
    /// What would be killed with kubelet.
    calls: Mutex<Vec<Killer>>,
}

impl<'a> World<'a> {
    /// The world on `node`, with these builds of the driver, of which the first is installed.
    pub(crate) fn new(node: &'a Sandbox, builds: Vec<PathBuf>, history: History) -> Self {
        let gate = Gate::start(node.store.address()).expect("a proxy on loopback");
        let paths = Paths {
            root: node
                .path("kubelet")
                .parent()
                .expect("a directory")
                .to_owned(),
            pods: node.path("kubelet/pods"),
            containers: node.path("containers"),
            state: node.state_directory(),
            log: node.log_file(),
            driver: node.path("exec/alicloud~oss/oss"),
        };
        std::fs::create_dir_all(&paths.pods).expect("make the directory of Pods");
        let plugin = paths.driver.parent().expect("a directory");
        std::fs::create_dir_all(plugin).expect("make the driver's directory");
        for volume in VOLUMES.iter().filter(|volume| !volume.prefix.is_empty()) {
            node.store.put(BUCKET, volume.prefix, "");
        }
        let mut kubelet = node.kubelet.clone();
        kubelet.driver.clone_from(&paths.driver);
        let world = Self {
            store: &node.store,
            keys: Keys::new(&node.key_id, &node.secret),
            usual: node.options(json!({"url": gate.url()})),
            gate,
            paths,
            pods: (0..PODS).map(Pod::new).collect(),
            ledger: Mutex::default(),
            stopped: Stopped::default(),
            users: AtomicUsize::new(0),
            counts: Counts::default(),
            history,
            kubelet,
            builds,
            calls: Mutex::default(),
        };
        world.upgrade(0);
        world
    }

    /// Calls the driver as kubelet does, and kills the call after `kill`. Nothing if it was killed.
    ///
    /// # Panics
    /// If kubelet could not use the answer, or a secret is in it.
    pub(crate) fn call(&self, args: &[&str], kill: Option<Duration>) -> Option<Answer> {
        let call = self.kubelet.start(args);
        let killer = call.killer();
        self.calls.lock().expect("the calls").push(killer.clone());
        let answer = std::thread::scope(|scope| {
            if let Some(after) = kill {
                let killer = &killer;
                scope.spawn(move || {
                    sleep(after);
                    killer.kill();
                });
            }
            call.finish()
        });
        match &answer {
            Some(answer) => assert!(
                !answer.raw.contains(SECRET_MARK),
                "in an answer: {}",
                answer.raw
            ),
            None => self.counts.calls_killed.add(),
        }
        answer
    }

    /// Ends all calls under way, as a restart of kubelet does.
    pub(crate) fn kill_calls(&self) {
        for call in self.calls.lock().expect("the calls").drain(..) {
            call.kill();
        }
    }

    /// Forgets the calls, which have ended all.
    pub(crate) fn forget_calls(&self) {
        self.calls.lock().expect("the calls").clear();
    }

    /// Runs `oss heal`, kills it after `kill`, and says whether it found or made all well.
    pub(crate) fn heal(&self, kill: Option<Duration>) -> Result<String, String> {
        let mut command = match kill {
            None => Command::new(&self.paths.driver),
            Some(after) => {
                let mut command = Command::new("timeout");
                command.args(["--signal=KILL", &format!("{:.6}", after.as_secs_f64())]);
                command.arg(&self.paths.driver);
                command
            }
        };
        let output = command
            .arg("heal")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.kubelet.environment.iter().cloned())
            .output()
            .expect("run the driver");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(!text.contains(SECRET_MARK), "in the words of heal: {text}");
        self.counts.heals.add();
        self.history
            .note(format_args!("heal: {}: {text}", output.status));
        if output.status.success() {
            Ok(text)
        } else {
            self.counts.heals_failed.add();
            Err(text)
        }
    }

    /// Puts a build of the driver in the place of the one that is there, as the installer does: by
    /// a rename, and with a copy made by a process of its own, so that no child of another thread
    /// has it open for writing when it is first run.
    pub(crate) fn upgrade(&self, build: usize) {
        let copy = self.paths.driver.with_file_name(".oss-new");
        let copied = Command::new("cp")
            .arg(&self.builds[build])
            .arg(&copy)
            .status();
        assert!(copied.expect("run cp").success(), "copy the driver");
        std::fs::rename(&copy, &self.paths.driver).expect("put the driver in place");
    }

    /// Has the store go wrong for a while.
    pub(crate) fn fault(&self, fault: Fault, time: Duration) {
        self.counts.faults.add();
        let injected = match fault {
            Fault::Delay(delay) => Some(support::Fault::Delay(delay)),
            Fault::Status(status) => Some(support::Fault::Status(status)),
            Fault::Close => Some(support::Fault::Close),
            Fault::Hang => Some(support::Fault::Hang),
            Fault::UnknownKeys | Fault::Reset | Fault::Down => None,
        };
        let id = injected.map(|fault| self.store.inject_everywhere(fault));
        match fault {
            Fault::UnknownKeys => {
                let pairs = self.keys.all();
                pairs.iter().for_each(|(key, _)| self.store.remove_key(key));
            }
            Fault::Reset => return self.gate.reset(),
            Fault::Down => self.gate.close(),
            _ => {}
        }
        sleep(time);
        match fault {
            Fault::UnknownKeys => {
                let pairs = self.keys.all();
                pairs
                    .iter()
                    .for_each(|(key, secret)| self.store.add_key(key, secret));
            }
            Fault::Down => self.gate.open(),
            _ => {}
        }
        if let Some(id) = id {
            self.store.remove_fault(id);
        }
        self.history.note(format_args!("{fault:?} is over"));
    }
}
