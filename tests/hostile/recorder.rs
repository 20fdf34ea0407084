//! A stand-in for ossfs for the one question with which arguments it is started.

use serde_json::{Map, Value, json};
use std::path::Path;
use support::{Answer, Sandbox, Status, wait_until};

/// What the stand-in does once it has written its arguments down.
pub(crate) enum Then {
    /// Ends with status 0, so that nothing is mounted.
    End,
    /// Becomes s3fs.
    Serve,
}

/// A node whose ossfs writes its arguments down.
pub(crate) struct Recorder<'a> {
    pub(crate) node: &'a Sandbox,
}

impl<'a> Recorder<'a> {
    /// Puts the stand-in in ossfs's place on `node`, with `more` keys of the configuration.
    pub(crate) fn new(node: &'a Sandbox, then: &Then, more: Value) -> Self {
        let end = match then {
            Then::End => "exit 0".to_owned(),
            Then::Serve => format!("exec {} \"$@\"", node.path("ossfs").display()),
        };
        let file = node.path("arguments");
        let script = node.write_script(
            "recorder",
            // Renamed: one that is killed at this moment leaves no part of it.
            &format!(
                "printf '%s\\0' \"$@\" > {0}.new && mv {0}.new {0}\n{end}\n",
                file.display()
            ),
        );
        // Without a sandbox it can write them down here, and a command that it ran would find the canary.
        let mut config = Map::from_iter([
            ("ossfs".to_owned(), json!(script)),
            ("sandbox".to_owned(), json!("off")),
        ]);
        config.extend(more.as_object().cloned().unwrap_or_default());
        node.configure(&config);
        std::fs::create_dir_all(node.path("canary")).unwrap();
        Self { node }
    }

    /// `text` with the place of the canary in it.
    pub(crate) fn arm(&self, text: &str) -> String {
        let canary = self.node.path("canary/bird").display().to_string();
        text.replace("CANARY", &canary)
    }

    /// The arguments of the last start, with the state directory as STATE and the volume's name in
    /// it as ID; nothing if it was not started since the last question.
    pub(crate) fn arguments(&self) -> Option<Vec<String>> {
        let file = self.node.path("arguments");
        let text = std::fs::read_to_string(&file).ok()?;
        std::fs::remove_file(&file).unwrap();
        let volumes = format!("{}/volumes/", self.node.state_directory().display());
        let normal = |argument: &str| match argument.split_once(&volumes) {
            Some((before, rest)) => format!("{before}STATE/ID{}", &rest[32..]),
            None => match argument.split_once("/alicloud-oss-") {
                Some((before, rest)) => format!("{before}/alicloud-oss-ID{}", &rest[32..]),
                None => argument.to_owned(),
            },
        };
        Some(
            text.trim_end_matches('\0')
                .split('\0')
                .map(normal)
                .collect(),
        )
    }

    /// The arguments for `source` with `options` of the volume's own.
    pub(crate) fn expected(&self, source: &str, options: &[&str]) -> Vec<String> {
        let url = format!("url={}", self.node.store.url());
        let last = [
            "allow_other",
            "nosuid",
            "nodev",
            &url,
            "passwd_file=STATE/ID/passwd",
        ];
        let mut arguments = vec![source, "STATE/ID/staging", "-f"];
        for option in options.iter().chain(&last) {
            if !option.starts_with('-') {
                arguments.push("-o");
            }
            arguments.push(option);
        }
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// Mounts at a new TARGET of the Pod `pod`.
    #[track_caller]
    pub(crate) fn mount(&self, pod: &str, options: &Value) -> Answer {
        let answer = self.node.mount(&self.node.target(pod, "v"), options);
        if answer.status == Status::Failure {
            // Its ossfs ends with the process that the call has killed, and what that has started.
            let directory = self.node.path("").display().to_string();
            let left = || self.node.processes(&directory);
            wait_until("no process is left", || left().is_empty());
        }
        answer
    }

    /// Checks that the call behind `answer` has started ossfs and left nothing after its end.
    #[track_caller]
    pub(crate) fn assert_ended(&self, name: &str, answer: &Answer) {
        assert!(
            answer
                .failure()
                .contains("exited without serving the mount"),
            "{name}: {}",
            answer.raw
        );
        self.assert_nothing_left(name);
    }

    /// Checks that no command has run, and that no mount, process or key file is there.
    #[track_caller]
    pub(crate) fn assert_nothing_left(&self, name: &str) {
        assert_eq!(
            entries(&self.node.path("canary")),
            0,
            "{name}: a command ran"
        );
        assert_eq!(self.node.mounts(), [], "{name}");
        assert_eq!(self.node.key_files(), [] as [&Path; 0], "{name}");
        assert_eq!(self.node.daemons(), [] as [i32; 0], "{name}");
    }
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}
