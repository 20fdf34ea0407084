//! The files in which a volume's process keeps what its successor needs should it be killed: the
//! relay's tables as a journal (`nodes`), and the requests under way as a table of fixed size
//! (`inflight`). They live as long as the page cache does: a node that restarts has no connection
//! left that they could be of.

use crate::serve::relay::{JOURNAL_HEADER, Record, Relay};
use crate::sys::root_only;
use anyhow::{Context as _, Result, bail};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The journal's name in the volume's directory.
const NODES: &str = "nodes";
/// The name of the table of requests under way.
const IN_FLIGHT: &str = "inflight";
/// Requests that the table holds.
const SLOTS: usize = 1024;
/// A journal is not rewritten before it has grown by this, in bytes.
const SMALLEST: u64 = 1 << 20;
/// The largest journal that is read, in bytes: more than the relay's bounds let one become.
const LARGEST: u64 = 4 << 30;

/// The open files.
pub(crate) struct Journal {
    directory: PathBuf,
    nodes: File,
    in_flight: File,
    buffer: Vec<u8>,
    /// Bytes of the journal, and how many of them its last rewriting left.
    length: u64,
    live: u64,
    broken: bool,
}

/// What a process that was killed has left.
pub(crate) struct Left {
    pub(crate) nodes: Vec<u8>,
    pub(crate) in_flight: Vec<u64>,
}

impl Left {
    /// What is in the directory `volume`.
    pub(crate) fn read(volume: &Path) -> Result<Self> {
        let read = |name: &str, most: u64| {
            let path = volume.join(name);
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
                .with_context(|| format!("read {}", path.display()))?;
            match bytes.len() as u64 > most {
                true => bail!("{} has more than {most} bytes", path.display()),
                false => Ok(bytes),
            }
        };
        Ok(Self {
            nodes: read(NODES, LARGEST)?,
            in_flight: parse_slots(&read(IN_FLIGHT, 8 * SLOTS as u64)?),
        })
    }
}

impl Journal {
    /// Begins anew in the directory `volume` with what `relay` holds.
    pub(crate) fn begin(volume: &Path, relay: &Relay) -> Result<Self> {
        let (nodes, length) = write_nodes(volume, relay)?;
        let in_flight = create(&volume.join(IN_FLIGHT))?;
        Ok(Self {
            directory: volume.to_owned(),
            nodes,
            in_flight,
            buffer: Vec::new(),
            length,
            live: length,
            broken: false,
        })
    }

    /// Takes a record; it is kept once `flush` is called.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        if !self.broken {
            record.encode(&mut self.buffer);
        }
    }

    /// Keeps what was recorded.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let written = self.nodes.write_all(&self.buffer);
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        if let Err(e) = written {
            self.give_up(&e);
        }
    }

    /// Notes that the kernel's request `unique` is in `slot`.
    pub(crate) fn taken(&mut self, slot: u16, unique: u64) {
        if self.broken {
            return;
        }
        let at = 8 * u64::from(slot);
        if let Err(e) = self.in_flight.write_all_at(&unique.to_ne_bytes(), at) {
            self.give_up(&e);
        }
    }

    /// Rewrites a journal that has grown to more than twice of what it must hold.
    pub(crate) fn compact(&mut self, relay: &Relay) {
        if self.broken || self.length < 2 * self.live + SMALLEST {
            return;
        }
        match write_nodes(&self.directory, relay) {
            Ok((nodes, length)) => {
                self.nodes = nodes;
                self.length = length;
                self.live = length;
            }
            Err(e) => {
                log::warn!("{e:#}");
                // Tried again after it has grown as much once more.
                self.live = self.length;
            }
        }
    }

    /// Stops to keep anything: half a journal would make a successor believe wrong things.
    fn give_up(&mut self, error: &std::io::Error) {
        log::error!(
            "write the journal in {}: {error}: if this process is killed, the mount is lost",
            self.directory.display()
        );
        self.broken = true;
        for name in [NODES, IN_FLIGHT] {
            // Whatever is left of it has no end that fits.
            let _ = std::fs::remove_file(self.directory.join(name));
        }
    }
}

/// Removes the files from the directory `volume`.
pub(crate) fn remove(volume: &Path) -> Result<()> {
    for name in [NODES, IN_FLIGHT] {
        root_only::remove(&volume.join(name))?;
    }
    Ok(())
}

/// A journal of what `relay` holds, complete under its name or not there, and its length.
fn write_nodes(volume: &Path, relay: &Relay) -> Result<(File, u64)> {
    let path = volume.join(NODES);
    let fresh = volume.join(format!("{NODES}.new"));
    let write = || -> std::io::Result<(File, u64)> {
        let mut out = BufWriter::new(create_file(&fresh)?);
        let mut length = JOURNAL_HEADER.len() as u64;
        out.write_all(JOURNAL_HEADER)?;
        let (mut bytes, mut result) = (Vec::new(), Ok(()));
        relay.snapshot(&mut |record| {
            bytes.clear();
            record.encode(&mut bytes);
            length += bytes.len() as u64;
            if result.is_ok() {
                result = out.write_all(&bytes);
            }
        });
        result?;
        let file = out.into_inner().map_err(|e| e.into_error())?;
        std::fs::rename(&fresh, &path)?;
        Ok((file, length))
    };
    write().with_context(|| format!("write {}", path.display()))
}

fn create(path: &Path) -> Result<File> {
    create_file(path).with_context(|| format!("create {}", path.display()))
}

fn create_file(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn parse_slots(bytes: &[u8]) -> Vec<u64> {
    let (slots, _) = bytes.as_chunks::<8>();
    let slots = slots.iter().map(|slot| u64::from_ne_bytes(*slot));
    slots.filter(|unique| *unique != 0).collect()
}
