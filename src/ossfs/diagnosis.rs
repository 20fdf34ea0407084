//! What ossfs says of a failure, in one line, with what a person can do about it. The texts are
//! those of ossfs 1.91 and of s3fs 1.90.

use std::io::{PipeReader, Read as _};

/// The most of a daemon's words that an answer repeats, in characters.
const MAX_WORDS: usize = 300;
/// The most that is read of a daemon's words, in bytes; a pipe holds 64 KiB.
const MAX_READ: u64 = 128 * 1024;
/// Lines that are no reason: what ossfs does rather than what goes wrong, and systemd-run's own.
const NOISE: [&str; 6] = [
    "[INF] ",
    "[DBG] ",
    "Running scope as unit",
    "Running as unit",
    "signature V1",
    "retry to connect by signature",
];
/// A part of ossfs's words, without regard to case, and what to do about it. The first that fits
/// counts.
const HINTS: &[(&str, &str)] = &[
    (
        "invalid credentials",
        "check akId and akSecret, and what they may do in this bucket",
    ),
    (
        "invalidaccesskeyid",
        "the key id is not known to the store: check akId",
    ),
    (
        "signaturedoesnotmatch",
        "the secret does not fit the key id: check akSecret",
    ),
    (
        "accessdenied",
        "the key pair may not use this bucket: check its permissions",
    ),
    (
        "not found",
        "check bucket and url: a bucket lives at one endpoint",
    ),
    (
        "nosuchbucket",
        "check bucket and url: a bucket lives at one endpoint",
    ),
    (
        "unable to connect",
        "check url, and that this node reaches it",
    ),
    (
        "could not connect",
        "check url, and that this node reaches it",
    ),
    (
        "couldn't connect",
        "check url, and that this node reaches it",
    ),
    (
        "connection refused",
        "check url, and that this node reaches it",
    ),
    (
        "could not resolve",
        "check url: its host name is not known here",
    ),
    (
        "couldn't resolve",
        "check url: its host name is not known here",
    ),
    ("timed out", "check url, and that this node reaches it"),
    (
        "redirect",
        "the bucket lives at another endpoint: check url",
    ),
    (
        "device not found",
        "load the fuse module on this node: modprobe fuse",
    ),
    (
        "/dev/fuse",
        "load the fuse module on this node: modprobe fuse",
    ),
    (
        "unknown option",
        "this ossfs does not know the option: check otherOpts and its version",
    ),
    ("not exist", "check path: it must be there in the bucket"),
];

/// What a daemon has printed so far, behind what was read before. The pipe does not block.
pub(crate) fn read(output: &mut PipeReader) -> String {
    let mut bytes = Vec::new();
    // Ends with the pipe, or with an error when it is empty for now.
    let _ = output.take(MAX_READ).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The reason in what ossfs printed, with a hint where one is known; nothing if it said nothing.
pub(crate) fn explain(output: &str) -> Option<String> {
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !NOISE.iter().any(|noise| line.contains(noise)))
        .map(|line| message(line.trim()))
        .filter(|line| !line.is_empty())
        .collect();
    let hint = |line: &str| {
        let line = line.to_lowercase();
        HINTS
            .iter()
            .find(|(part, _)| line.contains(part))
            .map(|(_, hint)| *hint)
    };
    // The first line with a known reason: what follows it are consequences. Next, what ossfs itself
    // gives as the reason; its log has the store's answer, a document of several lines, too.
    let telling = lines
        .iter()
        .find(|line| hint(line).is_some())
        .or_else(|| lines.iter().find(|line| line.starts_with("ossfs: ")))
        .or_else(|| lines.iter().rfind(|line| !line.starts_with('<')))
        .or(lines.last())?;
    let shown: String = telling.chars().take(MAX_WORDS).collect();
    Some(match hint(telling) {
        Some(hint) => format!("{shown} ({hint})"),
        None => shown,
    })
}

/// The line without what a logger puts before it: `TIME [ERR] file.cpp:function(123): `.
fn message(line: &str) -> &str {
    let behind_level = ["[CRT] ", "[ERR] ", "[WAN] "]
        .iter()
        .find_map(|level| line.split_once(level))
        .map_or(line, |(_, rest)| rest);
    match behind_level.split_once("): ") {
        Some((place, rest)) if place.contains(".cpp:") => rest.trim(),
        _ => behind_level,
    }
}

#[cfg(test)]
mod tests {
    use super::explain;

    #[test]
    fn finds_the_reason_among_the_words() {
        for (output, expected) in [
            ("", None),
            ("\n\n", None),
            ("Running scope as unit: x.scope\n", None),
            (
                "ossfs: Failed to check bucket and directory for mount point : Invalid Credentials(host=a, message=b)\n",
                Some(
                    "ossfs: Failed to check bucket and directory for mount point : Invalid \
                     Credentials(host=a, message=b) (check akId and akSecret, and what they may do in this bucket)",
                ),
            ),
            (
                "2026-01-01T00:00:00.000Z [CRT] s3fs.cpp:s3fs_check_service(3503): bucket not found - result of checking service.\n2026-01-01T00:00:00.000Z [ERR] s3fs.cpp:s3fs_exit_fuseloop(3307): Exiting FUSE event loop due to errors\n",
                Some(
                    "bucket not found - result of checking service. (check bucket and url: a bucket lives at one endpoint)",
                ),
            ),
            (
                "ossfs: Failed to check bucket and directory for mount point : Bad Request(host=a, message=b)\n\
                 2026-01-01T00:00:00.000Z [ERR] curl.cpp:CheckBucket(3495): Check bucket failed, OSS response: <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                 <Error>\n  <Code>InvalidArgument</Code>\n</Error>\n",
                Some(
                    "ossfs: Failed to check bucket and directory for mount point : Bad Request(host=a, message=b)",
                ),
            ),
            ("the log\n<Error>\n</Error>\n", Some("the log")),
            (
                "one\nsomething else\n[INF] curl.cpp:Init(1): loaded\n",
                Some("something else"),
            ),
        ] {
            assert_eq!(explain(output).as_deref(), expected, "{output}");
        }
    }

    #[test]
    fn repeats_no_more_than_a_message_bears() {
        assert_eq!(explain(&"x".repeat(5000)).map(|line| line.len()), Some(300));
    }
}
