//! The driver as a file: which machine it is for, what its `init` answers, which build it is.

use crate::host::program;
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// `init` reads no file and asks no network: this is plenty.
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// What this driver's `--version` begins with, whichever build it is.
pub(crate) const NAME: &str = "oss ";

/// What a driver's `init` answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Init {
    /// As this driver must: every capability that kubelet would take for true is false.
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

/// Runs `init` of the driver at `path` and judges its answer as kubelet does
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

/// The build id of the driver at `path`, which the stamp of its `init` has too: the text of its
/// `--version`.
pub(crate) fn build(path: &Path) -> Result<String> {
    let text = program::run(path, &["--version"], INIT_LIMIT)?.success()?;
    Ok(text.trim().to_owned())
}

/// An error if the program at `path` is not for this machine.
pub(crate) fn check_machine(path: &Path) -> Result<()> {
    let mut header = [0; 20];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut header))
        .with_context(|| format!("read {}", path.display()))?;
    let system = nix::sys::utsname::uname().context("ask the kernel for its machine")?;
    let kernel = system.machine().to_string_lossy();
    match machine(&header) {
        None => bail!("{} is not an ELF program", path.display()),
        Some(machine) if machine != kernel => bail!(
            "{} is for {machine}, and this machine is {kernel}: use the image for {kernel}",
            path.display()
        ),
        Some(_) => Ok(()),
    }
}

/// The machine of a program with this ELF header, by the name that uname(2) has for it (elf(5)).
fn machine(header: &[u8; 20]) -> Option<&'static str> {
    let number = match header {
        [0x7f, b'E', b'L', b'F', _, 2, .., high, low] => u16::from_be_bytes([*high, *low]),
        [0x7f, b'E', b'L', b'F', .., low, high] => u16::from_le_bytes([*low, *high]),
        _ => return None,
    };
    Some(match number {
        3 => "i686",
        21 => "ppc64le",
        22 => "s390x",
        40 => "armv7l",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => "an unknown machine",
    })
}

#[cfg(test)]
mod tests {
    use super::{Init, check_machine, machine, parse_init};
    use std::path::Path;

    #[test]
    fn answers_are_judged_as_kubelet_does() {
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

    #[test]
    fn the_header_names_the_machine() {
        let header = |data, machine: [u8; 2]| {
            let mut header = [0; 20];
            header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, data]);
            header[18..].copy_from_slice(&machine);
            header
        };
        assert_eq!(machine(&header(1, [62, 0])), Some("x86_64"));
        assert_eq!(machine(&header(1, [183, 0])), Some("aarch64"));
        assert_eq!(machine(&header(2, [0, 22])), Some("s390x"));
        assert_eq!(machine(&[0; 20]), None);
        check_machine(Path::new("/proc/self/exe")).unwrap();
        assert!(check_machine(Path::new("/etc/passwd")).is_err());
    }
}
