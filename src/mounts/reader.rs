//! Mount tables as streams of lines (proc_pid_mountinfo(5)), with bounds: whoever may mount in a
//! namespace makes its table as long as the kernel allows, and options of a file system as well.

use crate::mounts::line::{Mount, parse};
use crate::sys::deadline::Deadline;
use anyhow::{Context as _, Result, bail};
use std::io::{BufRead as _, BufReader, ErrorKind, Read};
use std::time::Duration;

/// The most mounts of one table, twice as many as a kernel allows unless an administrator allows more
/// (`fs.mount-max`, Documentation/admin-guide/sysctl/fs.rst).
const MOST_IN_TABLE: usize = 200_000;
/// The most mounts of all tables that one reader reads.
const MOST_IN_ALL: usize = 400_000;
/// The time that all of this may take.
const TIME: Duration = Duration::from_secs(10);
/// What of a line is kept, in bytes: two paths of 4 KiB, four times as long where every character is
/// escaped, and the rest. The options of the file system come last; what is cut is theirs.
const MOST_OF_LINE: usize = 64 * 1024;
/// How many lines are read between two looks at the clock.
const LOOK: usize = 1024;

/// Reads one mount table, or several: the bounds hold for all that one reader reads.
pub struct Reader {
    in_all: usize,
    in_table: usize,
    deadline: Deadline,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            in_all: MOST_IN_ALL,
            in_table: MOST_IN_TABLE,
            deadline: Deadline::after(TIME),
        }
    }
}

impl Reader {
    /// Gives each mount of `table` to `each`, in the order in which the kernel lists them. A line that
    /// is not as the manual describes is left out.
    ///
    /// # Errors
    /// The table cannot be read, has more mounts than any node needs, or takes too long.
    pub fn mounts(&mut self, table: impl Read, mut each: impl FnMut(Mount)) -> Result<()> {
        self.lines(table, |line| parse(line).into_iter().for_each(&mut each))
    }

    /// Gives each line of `table` to `each`, without the newline and at most the first 64 KiB of it.
    ///
    /// # Errors
    /// As those of `mounts`.
    pub(crate) fn lines(&mut self, table: impl Read, mut each: impl FnMut(&str)) -> Result<()> {
        let mut table = BufReader::new(table);
        let mut line = Vec::new();
        let mut count = 0;
        while next_line(&mut table, &mut line)? {
            if count == self.in_table || self.in_all == 0 {
                bail!(
                    "it has more than {count} mounts: find out which container or program makes \
                     them (/proc/PID/mountinfo)"
                );
            }
            count += 1;
            self.in_all -= 1;
            if count % LOOK == 0 && self.deadline.has_passed() {
                bail!(
                    "reading it took more than {} s: {count} mounts were read",
                    TIME.as_secs()
                );
            }
            each(&String::from_utf8_lossy(&line));
        }
        Ok(())
    }
}

/// Reads the next line into `line`, cut to its first `MOST_OF_LINE` bytes. False at the end.
fn next_line(table: &mut BufReader<impl Read>, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    let mut is_there = false;
    loop {
        let bytes = match table.fill_buf() {
            Ok([]) => return Ok(is_there),
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e).context("read a mount table"),
        };
        is_there = true;
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = MOST_OF_LINE - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        let read = part.len() + usize::from(end.is_some());
        table.consume(read);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LOOK, MOST_OF_LINE, Reader};
    use crate::sys::deadline::Deadline;
    use std::io::{Read, repeat};
    use std::time::Duration;

    const LINE: &[u8] = b"90 27 0:50 / /m rw - fuse.ossfs ossfs rw\n";

    fn reader(in_table: usize, in_all: usize) -> Reader {
        Reader {
            in_table,
            in_all,
            deadline: Deadline::after(Duration::from_secs(60)),
        }
    }

    fn count(reader: &mut Reader, table: impl Read) -> Result<usize, String> {
        let mut count = 0;
        let read = reader.mounts(table, |_| count += 1);
        read.map(|()| count).map_err(|e| format!("{e:#}"))
    }

    /// A table that has no end.
    struct Endless;

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = buffer.len().min(LINE.len());
            // Callers read it through a buffer that is larger than a line.
            buffer[..length].copy_from_slice(&LINE[..length]);
            Ok(length)
        }
    }

    #[test]
    fn a_table_without_an_end_is_given_up() {
        let error = count(&mut reader(100, 1000), Endless).unwrap_err();
        assert!(error.contains("more than 100 mounts"), "{error}");
        let mut late = Reader {
            deadline: Deadline::after(Duration::ZERO),
            ..reader(usize::MAX, usize::MAX)
        };
        let error = count(&mut late, Endless).unwrap_err();
        assert!(
            error.ends_with(&format!(": {LOOK} mounts were read")),
            "{error}"
        );
    }

    #[test]
    fn all_tables_of_one_reader_have_a_bound_together() {
        let table = LINE.repeat(60);
        let mut reader = reader(100, 100);
        assert_eq!(count(&mut reader, table.as_slice()), Ok(60));
        let error = count(&mut reader, table.as_slice()).unwrap_err();
        assert!(error.contains("more than 40 mounts"), "{error}");
    }

    #[test]
    fn of_a_line_without_an_end_the_beginning_counts() {
        let (start, next) = (
            "90 27 0:50 / /m rw - overlay o ",
            "\n91 27 0:50 / /n rw - tmpfs t rw",
        );
        let table = start
            .as_bytes()
            .chain(repeat(b'x').take(10_000_000))
            .chain(next.as_bytes());
        let mut found = Vec::new();
        let mut longest = 0;
        reader(9, 9)
            .lines(table, |line| {
                longest = longest.max(line.len());
                found.push(line.chars().take(31).collect::<String>());
            })
            .unwrap();
        assert_eq!(found, [start, &next[1..]]);
        assert_eq!(longest, MOST_OF_LINE);
    }

    #[test]
    fn lines_are_split_at_newlines_alone() {
        for (text, expected) in [
            ("", vec![]),
            ("a\n", vec!["a"]),
            ("a\n\nb", vec!["a", "", "b"]),
            ("a\r\n", vec!["a\r"]),
        ] {
            let mut lines = Vec::new();
            let mut each = |line: &str| lines.push(line.to_owned());
            reader(9, 9).lines(text.as_bytes(), &mut each).unwrap();
            assert_eq!(lines, expected, "{text:?}");
        }
    }
}
