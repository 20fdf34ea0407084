//! A daemon as libfuse 2.9 and ossfs are to the relay: nodes are paths, data is saved at FLUSH and
//! FSYNC, an open file can be read after its unlink. It panics where libfuse would abort: at a node
//! or handle that it does not have, at a FORGET of more than it has told of, at a RELEASE while a
//! request on the handle is under way.

use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::wire::{self, IN_HEADER, name_at, u32_at, u64_at};
use std::collections::{BTreeMap, HashMap, VecDeque};

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;
const ENOTEMPTY: i32 = 39;
const S_IFDIR: u32 = 0o40_000;
const S_IFREG: u32 = 0o100_000;

/// What outlives a daemon: the bucket.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// File numbers by path; paths have no slash at the start. Directories have no content.
    pub(super) paths: BTreeMap<String, u64>,
    pub(super) files: HashMap<u64, Vec<u8>>,
    numbers: u64,
}

impl Bucket {
    pub(super) fn with(files: &[(&str, &[u8])]) -> Self {
        let mut bucket = Self::default();
        for (path, content) in files {
            for (slash, _) in path.match_indices('/') {
                if !bucket.paths.contains_key(&path[..slash]) {
                    bucket.make(&path[..slash], None);
                }
            }
            bucket.make(path, Some(content.to_vec()));
        }
        bucket
    }

    fn make(&mut self, path: &str, content: Option<Vec<u8>>) -> u64 {
        self.numbers += 1;
        self.paths.insert(path.to_owned(), self.numbers);
        if let Some(content) = content {
            self.files.insert(self.numbers, content);
        }
        self.numbers
    }
}

#[derive(Debug)]
struct DaemonNode {
    /// None: unlinked.
    path: Option<String>,
    told: u64,
}

#[derive(Debug)]
struct DaemonHandle {
    file: u64,
    writes: bool,
    listing: Option<Vec<u8>>,
}

/// A daemon.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) inbox: VecDeque<Vec<u8>>,
    nodes: HashMap<u64, DaemonNode>,
    handles: HashMap<u64, DaemonHandle>,
    /// Not saved yet: content by file number, and new files.
    dirty: HashMap<u64, Vec<u8>>,
    unsaved: BTreeMap<String, u64>,
    numbers: u64,
    pub(super) minor: u32,
    pub(super) max_write: u32,
    /// The bytes of a listing's page at most.
    pub(super) page: usize,
}

impl Process {
    /// A daemon whose numbers no other has.
    pub(super) fn new(generation: u64) -> Self {
        Self {
            inbox: VecDeque::new(),
            nodes: HashMap::new(),
            handles: HashMap::new(),
            dirty: HashMap::new(),
            unsaved: BTreeMap::new(),
            numbers: generation * 1_000_000,
            minor: 19,
            max_write: 1 << 17,
            page: 4096,
        }
    }

    /// Nothing of the kernel's is left in it.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.handles.is_empty() && self.inbox.is_empty()
    }

    pub(super) fn open_handles(&self) -> usize {
        self.handles.len()
    }

    pub(super) fn known_nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Serves the `n`th request that it has; none for one that has no answer.
    pub(super) fn serve(&mut self, n: usize, bucket: &mut Bucket) -> Option<Vec<u8>> {
        let message = self.inbox.remove(n).expect("there is a request");
        assert_eq!(u32_at(&message, 0) as usize, message.len(), "length");
        let (number, unique) = (u32_at(&message, 4), u64_at(&message, 8));
        assert_eq!(unique & 1, 0, "uniques are even");
        let (node, body) = (u64_at(&message, 16), &message[IN_HEADER..]);
        match number {
            opcode::FORGET => {
                self.forget(node, u64_at(body, 0));
                return None;
            }
            opcode::BATCH_FORGET => {
                for n in 0..u32_at(body, 0) as usize {
                    self.forget(u64_at(body, 8 + 16 * n), u64_at(body, 16 + 16 * n));
                }
                return None;
            }
            _ => {}
        }
        let opcode = Opcode::of(number).expect("an opcode that is passed on");
        if opcode.closes() {
            let handle = u64_at(body, 0);
            let same = |other: &&Vec<u8>| {
                let opcode = Opcode::of(u32_at(other, 4));
                let offset =
                    opcode.filter(|opcode| !matches!(opcode, Opcode::Getattr | Opcode::Setattr));
                offset
                    .and_then(Opcode::handle)
                    .is_some_and(|at| u64_at(other, IN_HEADER + at) == handle)
            };
            assert!(
                !self.inbox.iter().any(|other| same(&other)),
                "RELEASE overtakes a request"
            );
        }
        let result = self.result(opcode, node, body, bucket);
        let (error, body) = match result {
            Ok(body) => (0, body),
            Err(error) => (error, Vec::new()),
        };
        let mut answer = wire::answer(unique, error).to_vec();
        answer.extend_from_slice(&body);
        let length = answer.len() as u32;
        wire::set_u32(&mut answer, 0, length);
        Some(answer)
    }

    fn forget(&mut self, node: u64, lookups: u64) {
        let known = self
            .nodes
            .get_mut(&node)
            .expect("a FORGET of a node that it has");
        known.told = known
            .told
            .checked_sub(lookups)
            .expect("a FORGET of what was told");
        if known.told == 0 {
            self.nodes.remove(&node);
        }
    }

    fn path(&self, node: u64) -> Result<String, i32> {
        if node == wire::ROOT {
            return Ok(String::new());
        }
        let known = self
            .nodes
            .get(&node)
            .expect("a node that it has (libfuse aborts)");
        known.path.clone().ok_or(ENOENT)
    }

    fn child(&self, node: u64, name: &[u8]) -> Result<String, i32> {
        let parent = self.path(node)?;
        let name = std::str::from_utf8(name).expect("a name");
        assert!(!name.is_empty() && !name.contains('/'), "{name:?}");
        Ok(match parent.is_empty() {
            true => name.to_owned(),
            false => format!("{parent}/{name}"),
        })
    }

    fn file(&self, path: &str, bucket: &Bucket) -> Option<u64> {
        if path.is_empty() {
            return Some(0);
        }
        self.unsaved
            .get(path)
            .or_else(|| bucket.paths.get(path))
            .copied()
    }

    fn content<'a>(&'a self, file: u64, bucket: &'a Bucket) -> Option<&'a Vec<u8>> {
        self.dirty.get(&file).or_else(|| bucket.files.get(&file))
    }

    fn attr(&self, file: u64, bucket: &Bucket) -> Vec<u8> {
        let content = self.content(file, bucket);
        let mut attr = vec![0; 88];
        wire::set_u64(&mut attr, 0, file);
        wire::set_u64(&mut attr, 8, content.map_or(0, Vec::len) as u64);
        let kind = if content.is_some() { S_IFREG } else { S_IFDIR };
        wire::set_u32(&mut attr, wire::attr::MODE, kind | 0o777);
        attr
    }

    fn entry(&mut self, path: &str, bucket: &Bucket) -> Result<Vec<u8>, i32> {
        let file = self.file(path, bucket).ok_or(ENOENT)?;
        let known = self
            .nodes
            .iter()
            .find(|(_, node)| node.path.as_deref() == Some(path));
        let id = known.map(|(id, _)| *id).unwrap_or_else(|| {
            self.numbers += 1;
            self.numbers
        });
        let fresh = || DaemonNode {
            path: Some(path.to_owned()),
            told: 0,
        };
        self.nodes.entry(id).or_insert_with(fresh).told += 1;
        let mut entry = vec![0; 40];
        wire::set_u64(&mut entry, 0, id);
        wire::set_u64(&mut entry, 8, 77);
        entry.extend(self.attr(file, bucket));
        Ok(entry)
    }

    fn open(&mut self, file: u64, writes: bool, directory: bool) -> Vec<u8> {
        self.numbers += 1;
        let handle = DaemonHandle {
            file,
            writes,
            listing: directory.then(Vec::new),
        };
        self.handles.insert(self.numbers, handle);
        let mut open = vec![0; 16];
        wire::set_u64(&mut open, 0, self.numbers);
        wire::set_u32(&mut open, 8, u32::MAX);
        open
    }

    fn handle(&self, body: &[u8]) -> &DaemonHandle {
        self.handles
            .get(&u64_at(body, 0))
            .expect("a handle that it has")
    }

    /// Saves a file, if it has a name.
    fn save(&mut self, file: u64, bucket: &mut Bucket) {
        if let Some(content) = self.dirty.remove(&file) {
            bucket.files.insert(file, content);
        }
        self.unsaved.retain(|path, unsaved| {
            if *unsaved == file {
                bucket.paths.insert(path.clone(), file);
            }
            *unsaved != file
        });
    }

    fn result(
        &mut self,
        opcode: Opcode,
        node: u64,
        body: &[u8],
        bucket: &mut Bucket,
    ) -> Result<Vec<u8>, i32> {
        let named = opcode.name().map(|offset| name_at(body, offset));
        match opcode {
            Opcode::Init => {
                let numbers = [7, self.minor, 1 << 20, u32::MAX, 0, self.max_write];
                Ok(numbers.iter().flat_map(|n: &u32| n.to_ne_bytes()).collect())
            }
            Opcode::Statfs => Ok(vec![0; wire::STATFS_OUT]),
            Opcode::Lookup => {
                let path = self.child(node, named.unwrap_or_default())?;
                self.entry(&path, bucket)
            }
            Opcode::Getattr => {
                let file = match self.handles.get(&u64_at(body, 8)) {
                    Some(handle) if u32_at(body, 0) == 1 => handle.file,
                    _ => self.file(&self.path(node)?, bucket).ok_or(ENOENT)?,
                };
                Ok([vec![0; 16], self.attr(file, bucket)].concat())
            }
            Opcode::Mknod | Opcode::Mkdir | Opcode::Create => {
                let path = self.child(node, named.unwrap_or_default())?;
                if self.file(&path, bucket).is_some() {
                    return Err(EEXIST);
                }
                let content = (opcode != Opcode::Mkdir).then(Vec::new);
                let file = bucket.make(&path, content);
                if opcode != Opcode::Create {
                    return self.entry(&path, bucket);
                }
                bucket.paths.remove(&path);
                bucket.files.remove(&file);
                self.dirty.insert(file, Vec::new());
                self.unsaved.insert(path.clone(), file);
                let entry = self.entry(&path, bucket)?;
                Ok([entry, self.open(file, true, false)].concat())
            }
            Opcode::Unlink | Opcode::Rmdir => {
                let path = self.child(node, named.unwrap_or_default())?;
                let file = self.file(&path, bucket).ok_or(ENOENT)?;
                let below = format!("{path}/");
                let mut all = self.unsaved.keys().chain(bucket.paths.keys());
                if all.any(|path| path.starts_with(&below)) {
                    return Err(ENOTEMPTY);
                }
                self.unsaved.remove(&path);
                bucket.paths.remove(&path);
                let _ = file;
                self.renamed(&path, None);
                Ok(Vec::new())
            }
            Opcode::Rename => {
                let old = named.unwrap_or_default();
                let new = name_at(body, 8 + old.len() + 1);
                let (from, to) = (self.child(node, old)?, self.child(u64_at(body, 0), new)?);
                self.rename(&from, &to, bucket)
            }
            Opcode::Open => {
                let file = self.file(&self.path(node)?, bucket).ok_or(ENOENT)?;
                let flags = u32_at(body, 0);
                assert_eq!(flags & 0o300, 0, "no O_CREAT and O_EXCL in OPEN");
                if flags & 0o1000 != 0 {
                    self.dirty.insert(file, Vec::new());
                }
                Ok(self.open(file, flags & 3 != 0, false))
            }
            Opcode::Opendir => {
                let file = self.file(&self.path(node)?, bucket).ok_or(ENOENT)?;
                Ok(self.open(file, false, true))
            }
            Opcode::Read => {
                let content = self.content(self.handle(body).file, bucket).ok_or(ENOENT)?;
                let from = (u64_at(body, 8) as usize).min(content.len());
                let to = (from + u32_at(body, 16) as usize).min(content.len());
                Ok(content[from..to].to_vec())
            }
            Opcode::Write => {
                let handle = self.handle(body);
                assert!(handle.writes, "a write to a handle that reads");
                let file = handle.file;
                let mut content = self.content(file, bucket).cloned().unwrap_or_default();
                let data = &body[40..];
                let from = u64_at(body, 8) as usize;
                content.resize(content.len().max(from + data.len()), 0);
                content[from..from + data.len()].copy_from_slice(data);
                self.dirty.insert(file, content);
                let mut written = vec![0; 8];
                wire::set_u32(&mut written, 0, data.len() as u32);
                Ok(written)
            }
            Opcode::Flush | Opcode::Fsync => {
                let file = self.handle(body).file;
                self.save(file, bucket);
                Ok(Vec::new())
            }
            Opcode::Release | Opcode::Releasedir => {
                let known = self.path(node);
                assert!(known.is_ok() || known == Err(ENOENT));
                let closed = self.handles.remove(&u64_at(body, 0));
                assert!(closed.is_some(), "a RELEASE of a handle that it has");
                Ok(Vec::new())
            }
            Opcode::Readdir => self.list(node, body, bucket),
            Opcode::Access => Ok(Vec::new()),
            other => panic!("the model has no {other:?}"),
        }
    }

    fn rename(&mut self, from: &str, to: &str, bucket: &mut Bucket) -> Result<Vec<u8>, i32> {
        let file = self.file(from, bucket).ok_or(ENOENT)?;
        self.save(file, bucket);
        if let Some(replaced) = self.file(to, bucket) {
            self.save(replaced, bucket);
        }
        let below = format!("{from}/");
        let unsaved: Vec<u64> = self
            .unsaved
            .iter()
            .filter(|(path, _)| path.starts_with(&below))
            .map(|(_, file)| *file)
            .collect();
        for file in unsaved {
            self.save(file, bucket);
        }
        bucket.paths = std::mem::take(&mut bucket.paths)
            .into_iter()
            .filter(|(path, _)| path != to)
            .map(|(path, file)| match moved(&path, from, to) {
                Some(path) => (path, file),
                None => (path, file),
            })
            .collect();
        self.renamed(to, None);
        self.renamed(from, Some(to));
        Ok(Vec::new())
    }

    fn renamed(&mut self, from: &str, to: Option<&str>) {
        for node in self.nodes.values_mut() {
            let Some(path) = &node.path else { continue };
            match to {
                None if path == from => node.path = None,
                None => {}
                Some(to) => {
                    if let Some(path) = moved(path, from, to) {
                        node.path = Some(path);
                    }
                }
            }
        }
    }

    /// As libfuse 2.9: positions in a buffer that is filled at position 0, cut where it ends.
    fn list(&mut self, node: u64, body: &[u8], bucket: &Bucket) -> Result<Vec<u8>, i32> {
        let (offset, size) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
        let id = u64_at(body, 0);
        if offset == 0 {
            let parent = self.path(node)?;
            let mut entries = Vec::new();
            // Each daemon has an order of its own.
            let mut paths: Vec<&String> = bucket.paths.keys().chain(self.unsaved.keys()).collect();
            if self.numbers / 1_000_000 % 2 == 1 {
                paths.reverse();
            }
            for path in paths {
                let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
                if above == parent {
                    let start = entries.len();
                    entries.resize(start + 24, 0);
                    entries.extend_from_slice(name.as_bytes());
                    entries.resize(entries.len().next_multiple_of(8), 0);
                    let end = entries.len() as u64;
                    wire::set_u64(&mut entries, start + 8, end);
                    wire::set_u32(&mut entries, start + 16, name.len() as u32);
                }
            }
            let handle = self.handles.get_mut(&id).expect("a handle that it has");
            handle.listing = Some(entries);
        }
        let listing = self.handle(body).listing.as_ref().expect("a directory");
        assert!(offset <= listing.len(), "a position that it never gave");
        let end = (offset + size.min(self.page)).min(listing.len());
        Ok(listing[offset..end].to_vec())
    }
}

/// Where `path` is after a rename, if it is touched.
fn moved(path: &str, from: &str, to: &str) -> Option<String> {
    if path == from {
        return Some(to.to_owned());
    }
    let below = path.strip_prefix(from)?.strip_prefix('/')?;
    Some(format!("{to}/{below}"))
}
