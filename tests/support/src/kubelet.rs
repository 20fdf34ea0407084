//! A caller of the driver that does as kubelet's FlexVolume plugin does: `exec`s it with stdin from
//! /dev/null and one pipe for both outputs, takes all of it as one JSON object in which what is
//! left out has kubelet's defaults, makes TARGET before a mount, and removes it with a plain rmdir
//! after a failed mount and after an unmount (`pkg/volume/flexvolume/{driver-call,mounter}.go`).

use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::io::{PipeReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The status word of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Success,
    Failure,
    NotSupported,
}

/// What the driver answered to one call.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: Status,
    pub message: String,
    pub capabilities: Option<Value>,
    /// All that came through the pipe.
    pub raw: String,
}

impl Answer {
    /// What kubelet makes of all that came through the pipe.
    ///
    /// # Panics
    /// When that is nothing.
    #[track_caller]
    pub fn parse(raw: &str) -> Self {
        parse(raw)
    }

    /// Goes on if the call succeeded.
    ///
    /// # Panics
    /// With the message, if it did not.
    #[track_caller]
    pub fn success(&self) {
        assert_eq!(self.status, Status::Success, "{}", self.message);
    }

    /// The message of a Failure.
    ///
    /// # Panics
    /// If the call did not fail.
    #[track_caller]
    pub fn failure(&self) -> &str {
        assert_eq!(self.status, Status::Failure, "{}", self.raw);
        &self.message
    }
}

/// The options that kubelet hands over for the volume `bucket` at `url`, read with a key pair, with
/// `more` over them.
pub fn volume_options(bucket: &str, url: &str, key_id: &str, secret: &str, more: &Value) -> Value {
    let mut options = json!({
        "bucket": bucket,
        "url": url,
        "akId": key_id,
        "akSecret": secret,
        "kubernetes.io/fsType": "",
        "kubernetes.io/readwrite": "rw",
        "kubernetes.io/pvOrVolumeName": "oss1",
        "kubernetes.io/pod.name": "pod",
        "kubernetes.io/pod.namespace": "default",
        "kubernetes.io/pod.uid": "uid",
        "kubernetes.io/serviceAccount.name": "",
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        options[key] = value.clone();
    }
    options
}

/// The caller: which driver it calls, in which environment.
#[derive(Debug, Clone)]
pub struct Kubelet {
    pub driver: PathBuf,
    pub environment: Vec<(OsString, OsString)>,
}

impl Kubelet {
    /// Calls the driver with `args`.
    ///
    /// # Panics
    /// When kubelet could not make sense of the answer, or would have leaked the arguments: more or
    /// less than one JSON object, an unknown status, an exit status other than 0.
    #[track_caller]
    pub fn call<A: AsRef<OsStr>>(&self, args: &[A]) -> Answer {
        let answer = self.start(args).finish();
        answer.expect("the driver was killed")
    }

    /// Calls the driver, a debug build, with `args`, and has it killed at `point` (`src/fault.rs`).
    ///
    /// # Panics
    /// When it does not come there.
    #[track_caller]
    pub fn killed_at<A: AsRef<OsStr>>(&self, point: &str, args: &[A]) {
        let status = Command::new(&self.driver)
            .args(args)
            .envs(self.environment.iter().cloned())
            .env("OSS_TEST_KILL_AT", point)
            .stdout(Stdio::null())
            .status()
            .expect("start the driver");
        assert_eq!(
            status.signal(),
            Some(9),
            "the driver does not come to {point:?}; a release build has no such points"
        );
    }

    /// Begins a call of the driver with `args`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start<A: AsRef<OsStr>>(&self, args: &[A]) -> Call {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let child = Command::new(&self.driver)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(writer.try_clone().expect("a pipe"))
            .stderr(writer)
            .spawn()
            .expect("start the driver");
        Call {
            killer: Killer(Arc::new(Mutex::new(child))),
            output: reader,
        }
    }

    /// Makes TARGET and mounts; after a failure TARGET is removed again, for which it must be empty.
    #[track_caller]
    pub fn mount(&self, target: &Path, options: &Value) -> Answer {
        std::fs::create_dir_all(target).expect("make TARGET");
        let answer = self.call(&[
            OsStr::new("mount"),
            target.as_os_str(),
            OsStr::new(&options.to_string()),
        ]);
        if answer.status != Status::Success {
            std::fs::remove_dir(target).expect("TARGET is empty after a failed mount");
        }
        answer
    }

    /// Unmounts; after a success TARGET is removed, for which nothing may be mounted there.
    #[track_caller]
    pub fn unmount(&self, target: &Path) -> Answer {
        let answer = self.call(&[OsStr::new("unmount"), target.as_os_str()]);
        if answer.status == Status::Success && target.exists() {
            std::fs::remove_dir(target).expect("TARGET is empty after an unmount");
        }
        answer
    }
}

/// A call of the driver that is under way.
pub struct Call {
    killer: Killer,
    output: PipeReader,
}

impl Call {
    /// What ends the call before it has answered.
    #[must_use]
    pub fn killer(&self) -> Killer {
        self.killer.clone()
    }

    /// Waits for the end of the call and of its output, and returns both.
    ///
    /// # Panics
    /// If the output is not UTF-8.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut raw = Vec::new();
        self.output.read_to_end(&mut raw).expect("read the answer");
        let status = self.killer.child().wait().expect("wait for the driver");
        let raw = String::from_utf8(raw).expect("the answer is UTF-8");
        (status, raw)
    }

    /// Waits for the answer: for as long as anybody has the pipe's other end, as kubelet does.
    /// Nothing if the call was killed.
    ///
    /// # Panics
    /// As [`Kubelet::call`].
    #[track_caller]
    pub fn finish(self) -> Option<Answer> {
        let (status, raw) = self.end();
        if status.signal() == Some(9) {
            return None;
        }
        assert!(status.success(), "{status}: {raw}");
        Some(Answer::parse(&raw))
    }
}

/// Kills a call of the driver, as a restart of kubelet does; one that has ended already is left
/// alone, and so is a later process of the same number.
#[derive(Clone)]
pub struct Killer(Arc<Mutex<Child>>);

impl Killer {
    pub fn kill(&self) {
        // It may have ended already.
        let _ = self.child().kill();
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(raw: &str) -> Answer {
    let json: Value =
        serde_json::from_str(raw).unwrap_or_else(|e| panic!("not one JSON object: {e}: {raw:?}"));
    assert_eq!(raw.lines().count(), 1, "not one line: {raw:?}");
    let status = match json["status"].as_str() {
        Some("Success") => Status::Success,
        Some("Failure") => Status::Failure,
        Some("Not supported") => Status::NotSupported,
        _ => panic!("no status that kubelet knows: {raw:?}"),
    };
    assert!(
        json.get("capabilities") != Some(&Value::Null),
        "this crashes kubelet: {raw:?}"
    );
    Answer {
        status,
        message: json["message"].as_str().unwrap_or_default().to_owned(),
        capabilities: json.get("capabilities").cloned(),
        raw: raw.to_owned(),
    }
}
