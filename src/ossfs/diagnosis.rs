//! The output of a daemon to a diagnosis: the reason of a failure in one line, with what to do about
//! it.

use crate::descriptor::OutputFormat;

/// The most of a daemon's output that a message repeats, in characters.
const MAX_QUOTED: usize = 300;

/// The reason in what ossfs printed, with a hint where one is known; `None` if it printed nothing.
pub(crate) fn explain(format: &OutputFormat, output: &str) -> Option<String> {
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !format.noise.iter().any(|noise| line.contains(noise)))
        .map(|line| message(format, line.trim()))
        .filter(|line| !line.is_empty())
        .collect();
    let hint = |line: &str| {
        let line = line.to_lowercase();
        format
            .hints
            .iter()
            .find(|(part, _)| line.contains(part))
            .map(|(_, hint)| *hint)
    };
    // The first line with a known reason: what follows it are consequences. Next, what ossfs itself
    // gives as the reason; its log has the store's answer, a document of several lines, too.
    let reason = lines
        .iter()
        .find(|line| hint(line).is_some())
        .or_else(|| lines.iter().find(|line| line.starts_with("ossfs: ")))
        .or_else(|| lines.iter().rfind(|line| !line.starts_with('<')))
        .or(lines.last())?;
    let quoted: String = reason.chars().take(MAX_QUOTED).collect();
    Some(match hint(reason) {
        Some(hint) => format!("{quoted} ({hint})"),
        None => quoted,
    })
}

/// The line without the logger's prefix: `TIME [ERR] file.cpp:function(123): `.
fn message<'a>(format: &OutputFormat, line: &'a str) -> &'a str {
    let after_level = format
        .levels
        .iter()
        .find_map(|level| line.split_once(level))
        .map_or(line, |(_, rest)| rest);
    match after_level.split_once("): ") {
        Some((location, rest)) if location.contains(format.source_extension) => rest.trim(),
        _ => after_level,
    }
}

#[cfg(test)]
mod tests {
    use crate::descriptor::OSSFS;

    fn explain(output: &str) -> Option<String> {
        super::explain(&OSSFS.output, output)
    }

    #[test]
    fn finds_the_reason_in_the_output() {
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
    fn a_quotation_is_cut() {
        assert_eq!(explain(&"x".repeat(5000)).map(|line| line.len()), Some(300));
    }
}
