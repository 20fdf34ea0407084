//! What is said over the control socket of a volume's process: one line of JSON each way.

use serde::{Deserialize, Serialize};

/// The version of the protocol that this build speaks.
pub(crate) const VERSION: u32 = 1;
/// The longest line either way, in bytes, the newline included.
pub(crate) const MAX_LINE: usize = 64 * 1024;
/// The socket's name in the volume's directory.
pub(crate) const SOCKET: &str = "socket";

/// A request.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) version: u32,
    pub(crate) call: Call,
}

/// What is asked for.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Call {
    /// The state and counters, at once.
    Status,
    /// The state once it is served or failed. A start that is held back is made now.
    Wait,
    /// The state, at once; a start that is held back is made now.
    Try,
    /// The state, at once; the plan is read again. What the next start of the daemon is made of holds
    /// from that on, the times at once; what the kernel was told once cannot be changed.
    Reload,
    /// The state, at once; then the staging directory is unmounted and the process ends.
    Quit,
    /// The state, at once. The volume is unmounted for good: where something else still has the mount, in
    /// a mount namespace of its own, the process ends as soon as nothing is open there.
    Leave,
}

/// An answer: a status, or the reason why there is none.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    Status(Status),
    Error(String),
}

/// An answer with the version of its form.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Reply {
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) answer: Answer,
}

/// Whether a volume is served.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum State {
    /// A daemon is on its way up.
    Starting,
    /// The daemon has answered.
    Served,
    /// The last daemon ended, or could not be started, before it served; the next start is held
    /// back.
    Failed {
        /// Its exit status, if it exited.
        exit: Option<i32>,
        /// The signal that ended it, if one did.
        signal: Option<i32>,
        /// The end of what it printed, or why it was not started.
        output: String,
    },
    /// The volume is unmounted; the daemon may still be uploading.
    Ending,
}

/// The state of a volume's process and what it counted.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether the volume is served.
    #[serde(flatten)]
    pub state: State,
    /// The process that answers.
    pub pid: u32,
    /// The daemon, if there is one.
    pub daemon: Option<u32>,
    /// Daemons that were started.
    pub starts: u64,
    /// Daemons that ended before the volume did.
    pub ends: u64,
    /// Daemons that were killed because they hung or broke the protocol.
    pub killed: u64,
    /// Whether an earlier process of this volume was killed and this one took over from it.
    pub restored: bool,
    /// Requests of the kernel that have no answer yet.
    pub in_flight: u64,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_ms: u64,
    /// Files and directories that the kernel knows.
    pub nodes: u64,
    /// Open handles.
    pub handles: u64,
    /// Those that are open for writing and work; none where the process does not see them, without the
    /// relay.
    #[serde(default)]
    pub writers: Option<u64>,
    /// Handles that fail until they are closed, because the daemon ended while they could write.
    pub lost_writers: u64,
    /// What the sandbox lacks on this node.
    pub sandbox_lacks: Vec<String>,
    /// The end of what the daemon printed, or the one before it.
    #[serde(default)]
    pub printed: String,
}

impl Status {
    /// That of a process that has only started.
    pub(crate) fn new(pid: u32) -> Self {
        Self {
            state: State::Starting,
            pid,
            daemon: None,
            starts: 0,
            ends: 0,
            killed: 0,
            restored: false,
            in_flight: 0,
            oldest_ms: 0,
            nodes: 0,
            handles: 0,
            writers: None,
            lost_writers: 0,
            sandbox_lacks: Vec::new(),
            printed: String::new(),
        }
    }
}

/// The request in one line.
///
/// # Errors
/// What is wrong with a line that is none, or is of another version.
pub(crate) fn parse_request(line: &[u8]) -> Result<Call, String> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(line) {
        Ok(Version { version: VERSION }) => {}
        Ok(Version { version }) => {
            return Err(format!(
                "version {version} is not known: {VERSION} is expected"
            ));
        }
        Err(e) => return Err(format!("not a request: {e}")),
    }
    match serde_json::from_slice::<Request>(line) {
        Ok(request) => Ok(request.call),
        Err(e) => Err(format!("not a request: {e}")),
    }
}

/// The line for `answer`.
pub(crate) fn render(answer: Answer) -> Vec<u8> {
    let reply = Reply {
        version: VERSION,
        answer,
    };
    let mut line = serde_json::to_vec(&reply)
        .unwrap_or_else(|_| br#"{"version":1,"error":"internal error"}"#.to_vec());
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::{Answer, Call, Reply, State, Status, parse_request, render};

    #[test]
    fn knows_its_requests_and_no_others() {
        for (line, expected) in [
            (r#"{"version":1,"call":"status"}"#, Ok(Call::Status)),
            (r#"{"version":1,"call":"wait"}"#, Ok(Call::Wait)),
            (
                r#"{"version":2,"call":"later"}"#,
                Err("version 2 is not known: 1 is expected"),
            ),
            (
                r#"{"version":1,"call":"later"}"#,
                Err("not a request: unknown variant `later`"),
            ),
            ("{}", Err("not a request: missing field `version`")),
            ("", Err("not a request: EOF")),
        ] {
            match (parse_request(line.as_bytes()), expected) {
                (Ok(call), Ok(expected)) => assert_eq!(call, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.starts_with(expected), "{error}");
                }
                (other, _) => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_answer_is_one_line_that_is_taken_back() {
        let mut status = Status::new(7);
        status.state = State::Failed {
            exit: Some(1),
            signal: None,
            output: "a\nb".to_owned(),
        };
        let line = render(Answer::Status(status.clone()));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let reply: Reply = serde_json::from_slice(&line).unwrap();
        assert!(matches!(reply.answer, Answer::Status(read) if read == status));
    }
}
