//! The driver as a program: what its `init` answers, which build it is.

use crate::host::program;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// `init` reads no file and does not use the network: far longer than it takes.
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// What this driver's `--version` begins with, whichever build it is.
pub(crate) const NAME: &str = "oss ";

/// What a driver's `init` answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// As this driver must: every capability whose default in kubelet is true is false.
    Good,
    /// Success without capabilities, as the old Go driver: kubelet holds its volumes as attachable.
    NoCapabilities,
}

/// The part of the answer that matters.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    message: String,
    capabilities: Option<Value>,
}

/// Runs `init` of the driver at `path` and checks its answer as kubelet does
/// (`pkg/volume/flexvolume/driver-call.go`).
pub(crate) fn init(path: &Path) -> Result<Init> {
    parse_init(&program::run(path, &["init"], INIT_LIMIT)?.success()?)
}

fn parse_init(text: &str) -> Result<Init> {
    let answer: Answer = serde_json::from_str(text).with_context(|| {
        format!(
            "init answered {:?}, one JSON object is expected",
            text.trim()
        )
    })?;
    if answer.status != "Success" {
        bail!("init answered {} {:?}", answer.status, answer.message);
    }
    let Some(capabilities) = answer.capabilities.filter(Value::is_object) else {
        return Ok(Init::NoCapabilities);
    };
    for name in ["attach", "selinuxRelabel", "fsGroup", "requiresFSResize"] {
        if capabilities.get(name) != Some(&Value::Bool(false)) {
            bail!("init answered capabilities without \"{name}\":false: {capabilities}");
        }
    }
    Ok(Init::Good)
}

/// The build id of the driver at `path`, which its init record has, too: the text of its
/// `--version`.
pub(crate) fn build(path: &Path) -> Result<String> {
    let text = program::run(path, &["--version"], INIT_LIMIT)?.success()?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Init, parse_init};

    #[test]
    fn answers_are_checked_as_kubelet_does() {
        let all =
            r#""attach":false,"selinuxRelabel":false,"fsGroup":false,"requiresFSResize":false"#;
        let good = format!(r#"{{"status":"Success","capabilities":{{{all}}}}}"#);
        assert_eq!(parse_init(&good).unwrap(), Init::Good);
        assert_eq!(
            parse_init("{\"status\":\"Success\"}\n").unwrap(),
            Init::NoCapabilities
        );
        for (text, expected) in [
            ("", "init answered \"\", one JSON object is expected"),
            (
                r#"{"status":"Failure","message":"m"}"#,
                "init answered Failure \"m\"",
            ),
            (
                r#"{"status":"Success","capabilities":{"attach":false}}"#,
                "init answered capabilities without \"selinuxRelabel\":false",
            ),
            (&format!("{good}{good}"), "init answered "),
        ] {
            let error = format!("{:#}", parse_init(text).unwrap_err());
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
