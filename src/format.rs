//! The versions of the files in the state directory that one build of the driver writes and another
//! may find: after an update volumes of the build before are still mounted, after a return to an
//! older build those of the newer one.

use crate::text::quote;
use anyhow::Result;
use serde::Deserialize;

/// What this build is called, different for any two that differ in their sources.
pub(crate) const BUILD: &str = env!("OSS_BUILD");

/// What every version of such a file has.
#[derive(Deserialize)]
struct Header {
    /// Builds before this field have left it out.
    #[serde(default)]
    version: u32,
    /// The build that wrote the file.
    #[serde(default)]
    build: String,
}

/// A file in a format that only newer builds know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewerFormat {
    build: String,
    version: u32,
    newest: u32,
}

impl std::fmt::Display for NewerFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "build {} of the driver wrote it in format {}, and this build ({BUILD}) reads formats up to \
             {}: install that build again, or delete the Pods that use this volume",
            quote(&self.build),
            self.version,
            self.newest
        )
    }
}

impl std::error::Error for NewerFormat {}

/// An error, `NewerFormat`, if the JSON object `text` has a version above `newest`. Whether it is such
/// an object at all is for the caller to find out.
pub(crate) fn check(text: &str, newest: u32) -> Result<()> {
    match serde_json::from_str::<Header>(text) {
        Ok(header) if header.version > newest => Err(NewerFormat {
            build: header.build,
            version: header.version,
            newest,
        }
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{BUILD, check};

    #[test]
    fn only_a_newer_format_is_refused_and_names_its_build() {
        for text in ["{}", r#"{"version":2}"#, r#"{"version":1,"x":[]}"#, "[", ""] {
            assert!(check(text, 2).is_ok(), "{text}");
        }
        let error = check(r#"{"version":3,"build":"9.0 (ab)","x":[]}"#, 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "build \"9.0 (ab)\" of the driver wrote it in format 3, and this build ({BUILD}) reads \
                 formats up to 2: install that build again, or delete the Pods that use this volume"
            )
        );
    }
}
