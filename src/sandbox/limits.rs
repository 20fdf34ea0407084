//! Bounds of the process: open files, processes, no core dumps (getrlimit(2), core(5), proc(5)).

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use std::path::Path;

/// Open files: ossfs needs one for each file that the Pods of the volume have open.
const FILES: rlim_t = 1 << 20;
/// Open files that every node can bear.
const FEWEST_FILES: rlim_t = 1 << 14;
/// Threads and processes of the uid: libfuse has one thread for each request that waits, and the
/// relay lets in about a hundred.
const PROCESSES: rlim_t = 4096;
/// Not 0: a core that is piped to a program is written whatever the limit is, but for 1 (core(5),
/// `do_coredump` in `fs/coredump.c`).
const CORE_BYTES: rlim_t = 1;

/// Sets the limits of this process and those that it starts.
pub(super) fn set(left_out: &mut Vec<String>) {
    // A key would be in a core, and what the Pods read.
    if setrlimit(Resource::RLIMIT_CORE, CORE_BYTES, CORE_BYTES).is_err() {
        left_out.push("core dumps are not limited".to_owned());
    }
    // Part of a dump that is written all the same; a kernel without the file writes none.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
    // The one that it inherits may keep it from ever being killed; a better one needs no privilege.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(FEWEST_FILES, |(_, hard)| hard);
    let files = files(
        number(Path::new("/proc/sys/fs/file-max")),
        number(Path::new("/proc/sys/fs/nr_open")),
    );
    // Beyond fs.nr_open nobody may go, and beyond the hard limit not everybody.
    if setrlimit(Resource::RLIMIT_NOFILE, files, files).is_err()
        && setrlimit(Resource::RLIMIT_NOFILE, hard.min(files), hard.min(files)).is_err()
    {
        left_out.push("the number of open files is not set".to_owned());
    }
    if setrlimit(Resource::RLIMIT_NPROC, PROCESSES, PROCESSES).is_err() {
        left_out.push("the number of processes is not limited".to_owned());
    }
}

/// How many files one ossfs may have open, on a node that allows `file_max` to all its processes and
/// `nr_open` to one. Those without CAP_SYS_ADMIN get ENFILE when all are in use: one volume may take a
/// quarter.
fn files(file_max: Option<rlim_t>, nr_open: Option<rlim_t>) -> rlim_t {
    let share = file_max.map_or(FILES, |all| all / 4);
    FILES
        .min(share.max(FEWEST_FILES))
        .min(nr_open.unwrap_or(FILES))
}

fn number(path: &Path) -> Option<rlim_t> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::files;

    #[test]
    fn one_volume_takes_no_more_than_its_share_of_open_files() {
        let unlimited = Some(9_223_372_036_854_775_807);
        let cases = [
            ("a new node", unlimited, Some(1_048_576), 1_048_576),
            (
                "a node of 8 GiB, Linux 3.10",
                Some(800_000),
                Some(1_048_576),
                200_000,
            ),
            ("a small node", Some(50_000), Some(1_048_576), 16_384),
            ("fs.nr_open lowered", unlimited, Some(65_536), 65_536),
            ("no /proc", None, None, 1_048_576),
        ];
        for (case, file_max, nr_open, expected) in cases {
            assert_eq!(files(file_max, nr_open), expected, "{case}");
        }
    }
}
