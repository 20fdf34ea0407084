//! A search for secrets where none may be: arguments and environments of all processes, the log,
//! answers, and every file of the state directory but the passwd files.

use std::path::{Path, PathBuf};

/// Where `secret` is found that it must not be: files below `directories` but passwd files of mode
/// 0600, and the arguments and environment of every process but `except`.
pub(crate) fn leaks(secret: &str, directories: &[&Path], except: u32) -> Vec<String> {
    let has = |path: &Path| {
        std::fs::read(path).is_ok_and(|bytes| {
            bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        })
    };
    let mut found: Vec<String> = Vec::new();
    for directory in directories {
        for file in files(directory) {
            if has(&file) && !is_passwd_file(&file) {
                found.push(file.display().to_string());
            }
        }
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if pid != except {
            for name in ["cmdline", "environ"] {
                let path = entry.path().join(name);
                if has(&path) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    found
}

fn is_passwd_file(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.file_name().is_some_and(|name| name == "passwd")
        && file
            .metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o7777 == 0o600)
}

/// Every file below `directory`, but for staging directories, where buckets are mounted.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == "staging" {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(self::files(&path)),
            Ok(_) => files.push(path),
            Err(_) => {}
        }
    }
    files
}
