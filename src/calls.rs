//! kubelet's calls, each a sequence of steps. An error of any step becomes the response here and
//! nowhere else.

mod adopt;
mod heal;
mod init;
mod mount;
mod serve;
mod unmount;

use crate::config::{self, Config};
use crate::kubelet::call::Call;
use crate::kubelet::response::Response;
use crate::kubelet::target::Target;
use crate::logging;
use crate::service::kubelet_root::real_path;
use anyhow::{Result, anyhow};
pub use serve::serve;
use std::ffi::OsStr;
use std::time::Instant;

/// The response to `call`. It never fails: every error is a Failure.
pub fn answer(call: &Call) -> Response {
    match call {
        // Under kubelet's node-wide lock: nothing is waited for, and nothing can fail.
        Call::Init => {
            init::record();
            Response::initialized()
        }
        Call::Unsupported(name) => Response::not_supported(&format!(
            "the call {name:?} is not one of init, mount and unmount"
        )),
        Call::Malformed { call, problem } => {
            logged(call, OsStr::new(""), |_, _, _| Err(anyhow!(*problem)))
        }
        Call::Mount { target, options } => logged("mount", target, |target, config, subject| {
            mount::mount(&target?, options, &config?, subject)
        }),
        // Volumes must go away even where the configuration is broken.
        Call::Unmount { target } => logged("unmount", target, |target, config, _| {
            unmount::unmount(&target?, &config.unwrap_or_default())
        }),
        // Answered before.
        Call::Cli(_) | Call::Serve(_) => Response::not_supported("not a call of kubelet"),
    }
}

/// The output lines of `oss heal`, and whether it succeeded.
pub(crate) fn heal(ids: &[String]) -> (Vec<String>, bool) {
    lines("heal", |config| heal::heal(ids, config))
}

/// The output lines of `oss adopt`, and whether it succeeded.
pub(crate) fn adopt() -> (Vec<String>, bool) {
    lines("adopt", |_| adopt::adopt())
}

fn lines(name: &str, step: impl FnOnce(&Config) -> Result<Vec<String>>) -> (Vec<String>, bool) {
    let result = Config::load(std::env::var_os(config::FILE_VARIABLE)).and_then(|config| {
        logging::start(&config.log_file, config.log_level);
        step(&config)
    });
    match result {
        Ok(lines) => (lines, true),
        Err(e) => {
            log::error!("{name}: {e:#}");
            (vec![format!("{e:#}")], false)
        }
    }
}

/// Runs `step` for the call `name`, with one line in the log about it.
fn logged(
    name: &str,
    target: &OsStr,
    step: impl FnOnce(Result<Target>, Result<Config>, &mut String) -> Result<()>,
) -> Response {
    let since = Instant::now();
    let config = Config::load(std::env::var_os(config::FILE_VARIABLE));
    match &config {
        Ok(config) => logging::start(&config.log_file, config.log_level),
        Err(e) => {
            let default = Config::default();
            logging::start(&default.log_file, default.log_level);
            log::error!("{e:#}");
        }
    }
    let target = Target::parse(target).map_err(anyhow::Error::msg);
    let (pod, volume) = match &target {
        Ok(target) => (target.pod_uid().to_owned(), target.volume().to_owned()),
        Err(_) => ("-".to_owned(), "-".to_owned()),
    };
    let mut subject = String::new();
    let target = target.and_then(real_path);
    let response = match step(target, config, &mut subject) {
        Ok(()) => Response::success(),
        Err(e) => Response::failure(&format!("{e:#}")),
    };
    let ms = since.elapsed().as_millis();
    let (status, message) = (response.status(), response.message());
    log::info!("{name} pod={pod} volume={volume:?} {subject} {status} in {ms} ms {message}");
    response
}
