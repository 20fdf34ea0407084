//! SHA-256 (FIPS 180-4) in the hexadecimal digits of sha256sum(1), for files of which it is to be known
//! whether they are the ones that somebody has written.

use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Result};
use std::path::Path;

/// That of `bytes`.
pub(crate) fn checksum(bytes: impl AsRef<[u8]>) -> String {
    digits(&Sha256::digest(bytes))
}

/// That of the file at `path`, which may be larger than this process's memory.
pub(crate) fn checksum_of(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), [0; 16 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digits(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn digits(bytes: &[u8]) -> String {
    let mut digits = String::new();
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::{checksum, checksum_of};

    #[test]
    fn a_checksum_is_that_of_sha256sum() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(checksum(""), empty);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes = vec![7; 100_000];
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(checksum_of(&path).unwrap(), checksum(&bytes));
    }
}
