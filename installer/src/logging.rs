//! The installer's log on stderr, as a Pod's: one line for each event, as text or as JSON.

use crate::host::as_host_sees;
use alicloud_oss::text::log_line;
use env_logger::{Builder, Target};
use log::LevelFilter;
use serde::Serialize;
use std::io::Write as _;
use std::path::PathBuf;

/// The format of a line.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// One line of the JSON format.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    level: &'a str,
    message: &'a str,
}

/// Logs to stderr from here on, with paths as the host has them whose root is seen at `root`.
pub(crate) fn start(format: Format, root: Option<PathBuf>) {
    let started = Builder::new()
        .filter_level(LevelFilter::Info)
        .target(Target::Stderr)
        .format(move |out, record| {
            let time = out.timestamp_millis().to_string();
            let message = as_host_sees(&record.args().to_string(), root.as_deref());
            out.write_all(line(format, &time, record.level().as_str(), &message).as_bytes())
        })
        .try_init();
    // Only a second call fails: then logging has started already.
    let _ = started;
}

fn line(format: Format, time: &str, level: &str, message: &str) -> String {
    let message = log_line(message);
    match format {
        Format::Text => format!("{time} {level:5} {message}\n"),
        Format::Json => {
            let line = Line {
                time,
                level: &level.to_ascii_lowercase(),
                message: &message,
            };
            // Three strings: serialising cannot fail.
            serde_json::to_string(&line).unwrap_or_default() + "\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, line};

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            line(Format::Text, "T", "INFO", "a\nb\"c"),
            "T INFO  a b\"c\n"
        );
        assert_eq!(
            line(Format::Json, "T", "WARN", "a\nb\"c"),
            "{\"time\":\"T\",\"level\":\"warn\",\"message\":\"a b\\\"c\"}\n"
        );
    }
}
