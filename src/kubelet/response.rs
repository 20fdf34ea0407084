//! The one JSON object that kubelet reads, and the only file that prints for it.
//!
//! kubelet reads stdout and stderr as one text (`pkg/volume/flexvolume/driver-call.go`) and writes
//! a call's arguments, keys among them, to its log when the exit status is not 0. So whatever the
//! outcome, exactly one line is printed and the status is 0.

use crate::text::{cut, strip_control};
use serde::Serialize;
use std::io::Write as _;

/// The longest message handed to kubelet, in bytes: it becomes a Pod Event.
const MAX_MESSAGE: usize = 800;

/// The response to one call.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct Response {
    status: Status,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
}

#[derive(Serialize, Debug, PartialEq, Eq, Clone, Copy)]
enum Status {
    Success,
    Failure,
    #[serde(rename = "Not supported")]
    NotSupported,
}

/// All false: what is left out defaults to true in kubelet, and each of them being true breaks FUSE
/// volumes (attach waits for a controller, fsGroup changes the owner of every object, …).
#[derive(Serialize, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
struct Capabilities {
    attach: bool,
    #[serde(rename = "selinuxRelabel")]
    selinux_relabel: bool,
    supports_metrics: bool,
    fs_group: bool,
    #[serde(rename = "requiresFSResize")]
    requires_fs_resize: bool,
}

impl Response {
    pub fn success() -> Self {
        Self::new(Status::Success, String::new())
    }

    /// Success of `init`, with the capabilities.
    pub fn initialized() -> Self {
        Self {
            capabilities: Some(Capabilities::default()),
            ..Self::success()
        }
    }

    /// A Failure with `message` made into one line of bounded length.
    pub fn failure(message: &str) -> Self {
        Self::new(Status::Failure, one_line(message))
    }

    /// The response to a call that this driver leaves to kubelet. kubelet remembers it for the life
    /// of its plugin object, so mount and unmount never give it.
    pub fn not_supported(message: &str) -> Self {
        Self::new(Status::NotSupported, one_line(message))
    }

    fn new(status: Status, message: String) -> Self {
        Self {
            status,
            message,
            capabilities: None,
        }
    }

    /// The status as kubelet spells it, for the log.
    pub fn status(&self) -> &'static str {
        match self.status {
            Status::Success => "Success",
            Status::Failure => "Failure",
            Status::NotSupported => "Not supported",
        }
    }

    /// The message, empty for a success.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The JSON object in one line, with its newline.
    pub fn to_line(&self) -> String {
        // Serialising strings and booleans cannot fail; the fallback keeps the promise anyway.
        let mut line = serde_json::to_string(self)
            .unwrap_or_else(|_| r#"{"status":"Failure","message":"internal error"}"#.to_owned());
        line.push('\n');
        line
    }

    /// Prints the response for kubelet. A closed stdout is ignored: then nothing reads it.
    pub fn print(&self) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout
            .write_all(self.to_line().as_bytes())
            .and_then(|()| stdout.flush());
    }
}

/// `text` with line ends and control characters as spaces, cut at `MAX_MESSAGE` bytes.
fn one_line(text: &str) -> String {
    let flat = strip_control(text);
    let line = flat.split(' ').filter(|w| !w.is_empty()).fold(
        String::with_capacity(flat.len()),
        |mut line, word| {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
            line
        },
    );
    cut(&line, MAX_MESSAGE).into_owned()
}

#[cfg(test)]
mod tests {
    use super::Response;

    #[test]
    fn init_sends_every_capability_as_false() {
        assert_eq!(
            Response::initialized().to_line(),
            concat!(
                r#"{"status":"Success","capabilities":{"attach":false,"selinuxRelabel":false,"#,
                r#""supportsMetrics":false,"fsGroup":false,"requiresFSResize":false}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(
            Response::failure("a\nb\u{1b}[0m \t c").to_line(),
            "{\"status\":\"Failure\",\"message\":\"a b [0m c\"}\n"
        );
        assert!(Response::failure(&"é".repeat(5000)).message().len() < 810);
    }

    #[test]
    fn not_supported_is_spelt_as_kubelet_expects() {
        assert_eq!(
            Response::not_supported("").to_line(),
            "{\"status\":\"Not supported\"}\n"
        );
    }
}
