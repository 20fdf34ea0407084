//! Watches the driver's path: once a driver was there, every moment is recorded in which it is absent,
//! partial, unknown or not executable.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// The bytes at the end of a driver that tell one build from another, and a whole one from a part.
const TAIL: i64 = 256;

pub struct DriverWatcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl DriverWatcher {
    /// Starts to read `path`, where one of `drivers` belongs, again and again.
    pub fn start(path: &Path, drivers: &[PathBuf]) -> Self {
        let known: Vec<_> = drivers
            .iter()
            .map(|path| fingerprint(path).unwrap())
            .collect();
        let (path, stop) = (path.to_owned(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut looks, mut seen, mut bad) = (0, false, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                looks += 1;
                match fingerprint(&path) {
                    Ok(found) if known.contains(&found) => seen = true,
                    Ok(found) => bad.push(format!("look {looks}: {found:?}")),
                    Err(_) if !seen => {}
                    Err(e) => bad.push(format!("look {looks}: {e}")),
                }
            }
            (looks, bad)
        });
        Self { stop, thread }
    }

    /// Ends reading, and returns how often it was read.
    ///
    /// # Panics
    /// If there was a moment without a whole driver.
    #[track_caller]
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let (looks, bad) = self.thread.join().unwrap();
        assert!(
            bad.is_empty(),
            "{} bad moments: {:#?}",
            bad.len(),
            &bad[..bad.len().min(5)]
        );
        looks
    }
}

/// Mode, length and end of the file at `path`.
pub fn fingerprint(path: &Path) -> std::io::Result<(u32, u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let mut tail = Vec::new();
    if meta.len() > TAIL.unsigned_abs() {
        file.seek(SeekFrom::End(-TAIL))?;
        file.read_to_end(&mut tail)?;
    }
    Ok((meta.mode() & 0o7777, meta.len(), tail))
}
