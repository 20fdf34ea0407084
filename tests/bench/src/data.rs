//! Files that are written and read back.

use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// The size of a small file and of a small write, in bytes.
const SMALL: usize = 4096;

/// A large file's contents: a block that is repeated.
pub(crate) struct Large {
    block: Vec<u8>,
    blocks: usize,
}

impl Large {
    /// Contents of `mib` MiB, the same in every run.
    pub(crate) fn new(mib: usize) -> Self {
        // Xorshift: no two lines are alike, as in real data.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let block = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(MIB / 8)
        .flatten()
        .collect();
        Self { block, blocks: mib }
    }

    pub(crate) fn mib(&self) -> usize {
        self.blocks
    }

    /// Writes the contents to a new file, and returns the time until all of it is in the store.
    pub(crate) fn write(&self, path: &Path) -> Result<Duration> {
        let since = Instant::now();
        let mut file = File::create(path).context("make a large file")?;
        for _ in 0..self.blocks {
            file.write_all(&self.block).context("write a large file")?;
        }
        file.sync_all().context("write a large file")?;
        drop(file);
        Ok(since.elapsed())
    }

    /// Reads the file to its end, and returns the time.
    pub(crate) fn read(&self, path: &Path) -> Result<Duration> {
        let since = Instant::now();
        let mut file = File::open(path).context("open a large file")?;
        let mut buffer = vec![0; MIB];
        let mut total = 0;
        loop {
            match file.read(&mut buffer).context("read a large file")? {
                0 => break,
                n => total += n,
            }
        }
        let time = since.elapsed();
        ensure!(total == self.blocks * MIB, "{total} bytes were read");
        ensure!(buffer == self.block, "other bytes were read");
        Ok(time)
    }
}

/// Writes `count` small files into a new directory in `place`, reads them back, and returns the time
/// of both. They are removed again.
pub(crate) fn small(place: &Path, count: usize) -> Result<Duration> {
    let directory = place.join("small");
    let contents = [b'x'; SMALL];
    let name = |number: usize| directory.join(format!("file-{number:04}"));
    std::fs::create_dir(&directory).context("make a directory")?;
    let since = Instant::now();
    for number in 0..count {
        std::fs::write(name(number), contents).context("write a small file")?;
    }
    for number in 0..count {
        let read = std::fs::read(name(number)).context("read a small file")?;
        ensure!(read == contents, "other bytes were read");
    }
    let time = since.elapsed();
    for number in 0..count {
        std::fs::remove_file(name(number)).context("remove a small file")?;
    }
    std::fs::remove_dir(&directory).context("remove a directory")?;
    Ok(time)
}

/// The mean time of as many calls of statfs(2) for `place`.
pub(crate) fn statfs(place: &Path, count: u32) -> Result<Duration> {
    let since = Instant::now();
    for _ in 0..count {
        nix::sys::statfs::statfs(place).context("statfs")?;
    }
    Ok(since.elapsed() / count)
}

/// The mean time of as many small writes into an open file in `place`, one after the other. What closes
/// and removes the file is not in it.
pub(crate) fn small_writes(place: &Path, count: u32) -> Result<Duration> {
    let path = place.join("small-writes");
    let mut file = File::create(&path).context("make a file")?;
    let contents = [b'x'; SMALL];
    let since = Instant::now();
    for _ in 0..count {
        file.write_all(&contents)
            .context("write into an open file")?;
    }
    let time = since.elapsed() / count;
    file.sync_all().context("write a file")?;
    drop(file);
    std::fs::remove_file(path).context("remove a file")?;
    Ok(time)
}
