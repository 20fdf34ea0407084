//! Replacing a process by a program, as execvp(3) does but without its shell: a file that the kernel
//! does not run is an error. And what such an error means.

use nix::errno::Errno;
use nix::sys::utsname::uname;
use nix::unistd::execv;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Why a program was not started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// There is no such program.
    Missing,
    /// It is there and cannot be run; the text says why.
    Refused(String),
}

/// Becomes the program `name`, searched in the directories of `path` (as the variable PATH has
/// them) if it is only a name. Returns only with the reason of a failure.
pub(crate) fn replace_process(name: &OsString, args: &[OsString], path: &str) -> NotStarted {
    let Some(program) = find(Path::new(name), path) else {
        return NotStarted::Missing;
    };
    let text = |text: &[u8]| CString::new(text).map_err(|_| Errno::EINVAL);
    let run = || -> nix::Result<Infallible> {
        let argv = std::iter::once(name).chain(args);
        let argv: Vec<CString> = argv
            .map(|arg| text(arg.as_bytes()))
            .collect::<nix::Result<_>>()?;
        execv(&text(program.as_os_str().as_bytes())?, &argv)
    };
    let Err(error) = run();
    explain(&program, error)
}

/// The file of the program `name`. One that may not be executed is skipped, as by execvp(3), unless
/// it is named with its directory.
fn find(name: &Path, path: &str) -> Option<PathBuf> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        return name.exists().then(|| name.to_owned());
    }
    let is_program = |file: &PathBuf| {
        std::fs::metadata(file)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let mut files = path
        .split(':')
        .map(|directory| Path::new(directory).join(name));
    files.find(is_program)
}

/// What the `error` of execve(2) for the file `program` means. ENOENT for a file that exists is about
/// another one: the dynamic loader, or the interpreter of a script.
pub(crate) fn explain(program: &Path, error: Errno) -> NotStarted {
    let machine = || match uname() {
        Ok(system) => system.machine().to_string_lossy().into_owned(),
        Err(_) => "this machine".to_owned(),
    };
    NotStarted::Refused(match error {
        Errno::ENOENT if !program.exists() => return NotStarted::Missing,
        Errno::ENOENT => {
            "the file exists, but the dynamic loader or interpreter that it names does \
                          not: use a build for this system"
                .to_owned()
        }
        Errno::ENOEXEC => format!("it is not a program for {}", machine()),
        e => e.desc().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{NotStarted, explain, find};
    use nix::errno::Errno;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    #[test]
    fn a_name_is_looked_for_and_a_path_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (directory, mode) in [("one", 0o644), ("two", 0o755), ("three", 0o755)] {
            create_dir(path(directory)).unwrap();
            write(path(directory).join("program"), "").unwrap();
            set_permissions(
                path(directory).join("program"),
                Permissions::from_mode(mode),
            )
            .unwrap();
        }
        create_dir(path("one/directory")).unwrap();
        let directories =
            ["none", "one", "two", "three"].map(|name| path(name).display().to_string());
        let directories = directories.join(":");
        let found = |name: &str| find(Path::new(name), &directories);
        assert_eq!(found("program"), Some(path("two/program")));
        assert_eq!(found("directory"), None);
        assert_eq!(found("other"), None);
        let named = path("one/program");
        assert_eq!(found(named.to_str().unwrap()), Some(named));
        assert_eq!(found("/no/such"), None);
    }

    #[test]
    fn an_error_says_what_is_wrong_with_the_program() {
        let here = Path::new("/proc/self/exe");
        for (program, error, expected) in [
            (Path::new("/no/such"), Errno::ENOENT, None),
            (
                here,
                Errno::ENOENT,
                Some("the file exists, but the dynamic loader or interpreter"),
            ),
            (here, Errno::ENOEXEC, Some("it is not a program for ")),
            (here, Errno::EACCES, Some("Permission denied")),
        ] {
            match (explain(program, error), expected) {
                (NotStarted::Missing, None) => {}
                (NotStarted::Refused(text), Some(start)) => {
                    assert!(text.starts_with(start), "{error}: {text}");
                }
                (found, _) => panic!("{error}: {found:?}"),
            }
        }
    }
}
