//! ossfs out of an image: a tree with the program, all that it loads, and the files that it reads, which
//! runs on a node that has none of them. For an init container of the image that has ossfs, to which this
//! program is handed in an emptyDir; the image needs nothing else, no shell and no package manager.

use crate::checks;
use crate::checksum::checksum_of;
use crate::host::{Host, program};
use anyhow::{Context as _, Result, bail};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `--version`, and the loader's list, take a moment.
const LIMIT: Duration = Duration::from_secs(20);
/// What makes the loader list what it would load, and exit (ld.so(8)).
const LIST: (&str, &str) = ("LD_TRACE_LOADED_OBJECTS", "1");
/// What ossfs and its libraries read, where the image has it: certificates, types of content, where
/// libraries are (ldconfig(8)), how names are looked up.
const DATA: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/mime.types",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
];
/// What the C library before 2.34 loads to look names up, and its loader does not list (nsswitch.conf(5)).
const NAMES: [&str; 3] = ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"];
/// The name of a tree that is not complete.
const NEW: &str = ".new";

/// Copies `name`, a program of the image that this process runs in, to a tree of its own in `directory`,
/// and returns that. It is called by the version and a digest of all its files, tried out before it has
/// that name, and left alone where it is there already. On an error there is no such tree.
pub(crate) fn copy(directory: &Path, name: &str) -> Result<PathBuf> {
    let program = find(name)?;
    let files = loaded(&program)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .with_context(|| format!("make {}", directory.display()))?;
    check_directory(directory)?;
    let new = directory.join(NEW);
    // Left by a process that was killed.
    remove(&new)?;
    let made = fill(&new, &program, &files).and_then(|digest| {
        let version = try_out(&new, &program)?;
        let tree = directory.join(format!("{version}-{digest}"));
        match std::fs::symlink_metadata(&tree) {
            Ok(_) => remove(&new)?,
            Err(_) => std::fs::rename(&new, &tree)
                .with_context(|| format!("rename {} to {}", new.display(), tree.display()))?,
        }
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("sync {}", directory.display()))?;
        Ok(tree)
    });
    if made.is_err() {
        remove(&new)?;
    }
    made
}

/// An error if no program in `directory` can be run, or nothing written there.
fn check_directory(directory: &Path) -> Result<()> {
    let path = directory.display();
    let flags = statvfs(directory)
        .with_context(|| format!("stat {path}"))?
        .flags();
    for (flag, what) in [
        (FsFlags::ST_RDONLY, "is read-only"),
        (FsFlags::ST_NOEXEC, "is mounted noexec"),
    ] {
        if flags.contains(flag) {
            bail!(
                "{path} is on a file system that {what}: choose a directory on another one, such as \
                 below /var/lib"
            );
        }
    }
    Ok(())
}

/// The file of the program `name`; an error for a script, which needs an interpreter that is not copied.
fn find(name: &str) -> Result<PathBuf> {
    let directories = alicloud_oss::sys::command::PATH.split(':');
    let candidates: Vec<PathBuf> = match name.contains('/') {
        true => vec![name.into()],
        false => directories.map(|d| Path::new(d).join(name)).collect(),
    };
    let Some(program) = candidates.into_iter().find(|file| file.is_file()) else {
        bail!("{name:?} is not a program of this image: install the package ossfs in it");
    };
    let mut start = [0; 2];
    File::open(&program)
        .and_then(|mut file| file.read_exact(&mut start))
        .with_context(|| format!("read {}", program.display()))?;
    if &start == b"#!" {
        bail!(
            "{} is a script: name the program that it runs (--program)",
            program.display()
        );
    }
    Ok(program)
}

/// The files that the tree has besides the program, with their modes.
fn loaded(program: &Path) -> Result<BTreeMap<PathBuf, u32>> {
    let output = program::run_with_variable(program, LIST, LIMIT)?;
    let libraries =
        parse_loaded(&output.text).with_context(|| format!("what {} loads", program.display()))?;
    let mut files: BTreeMap<PathBuf, u32> = BTreeMap::new();
    for library in libraries {
        if library.ends_with("libc.so.6") {
            let beside = NAMES.map(|name| library.with_file_name(name));
            files.extend(
                beside
                    .into_iter()
                    .filter(|f| f.is_file())
                    .map(|f| (f, 0o755)),
            );
        }
        files.insert(library, 0o755);
    }
    let data = DATA.map(PathBuf::from).into_iter();
    files.extend(data.filter(|file| file.is_file()).map(|file| (file, 0o644)));
    Ok(files)
}

/// The paths in what the loader lists: `NAME => PATH (ADDRESS)`, and the loader itself as
/// `PATH (ADDRESS)`. An error names all that it has not found.
fn parse_loaded(text: &str) -> Result<Vec<PathBuf>> {
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some((name, _)) = line.split_once(" => not found") {
            missing.push(name.to_owned());
        } else if let Some((path, _)) = line.rsplit_once(" (0x") {
            let path = path.rsplit_once(" => ").map_or(path, |(_, path)| path);
            // The kernel's own has no path (vdso(7)).
            if path.starts_with('/') {
                found.push(PathBuf::from(path));
            }
        }
    }
    if !missing.is_empty() {
        bail!(
            "not in this image: {}",
            alicloud_oss::text::list(&missing, ", ")
        );
    }
    Ok(found)
}

/// Makes the tree at `root`, and returns the digest of its files.
fn fill(root: &Path, program: &Path, files: &BTreeMap<PathBuf, u32>) -> Result<String> {
    let mut all = files.clone();
    all.insert(program.to_owned(), 0o755);
    let mut sums = String::new();
    for (file, mode) in &all {
        let copy = root.join(file.strip_prefix("/").unwrap_or(file));
        let context = || format!("copy {} to {}", file.display(), copy.display());
        copy_file(file, &copy, *mode).with_context(context)?;
        let sum = checksum_of(&copy).with_context(context)?;
        sums += &format!("{sum}  {}\n", file.display());
    }
    // A mount point for the node's own, and where programs expect to write.
    for directory in ["dev", "proc", "tmp"] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(root.join(directory))
            .with_context(|| format!("make {}", root.join(directory).display()))?;
    }
    let mut digest = crate::checksum::checksum(sums);
    digest.truncate(12);
    Ok(digest)
}

fn copy_file(from: &Path, to: &Path, mode: u32) -> std::io::Result<()> {
    if let Some(directory) = to.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    let mut file = File::create_new(to)?;
    std::io::copy(&mut File::open(from)?, &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// The version of the program in the tree at `root`, which it prints with that as its root.
fn try_out(root: &Path, program: &Path) -> Result<String> {
    let name = program.to_string_lossy();
    let output = program::run_on(&Host::new(root), &name, &[OsStr::new("--version")], LIMIT);
    let text = output.and_then(program::Output::success);
    let text = text.with_context(|| format!("try out {name} in {}", root.display()))?;
    match checks::parse_version(&text) {
        Some(version) => Ok(checks::dotted(&version)),
        None => bail!(
            "{name} --version has no version in its output: {:?}",
            text.lines().next().unwrap_or_default()
        ),
    }
}

fn remove(tree: &Path) -> Result<()> {
    match std::fs::remove_dir_all(tree) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", tree.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_loaded;
    use std::path::Path;

    #[test]
    fn the_loaders_list_has_paths_and_names_that_are_missing() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibfuse.so.2 => /lib/x86_64-linux-gnu/libfuse.so.2 (0x00007f1c)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f1d)\n";
        assert_eq!(
            parse_loaded(text).unwrap(),
            [
                Path::new("/lib/x86_64-linux-gnu/libfuse.so.2"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        let text = "\tlibfuse.so.2 => not found\n\tlibxml2.so.2 => not found\n";
        assert_eq!(
            parse_loaded(text).unwrap_err().to_string(),
            "not in this image: libfuse.so.2, libxml2.so.2"
        );
        // A static program prints something else.
        assert!(parse_loaded("Usage: ossfs BUCKET\n").unwrap().is_empty());
    }
}
