//! What the kernel holds, in a model: nodes, names, open files, requests under way; and which
//! answers it may get.

use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::tests::world::{
    Answer, World, entries, handle_in, open_in, read_in, rename_in, write_in, zero_ended,
};
use crate::serve::relay::wire::{self, ROOT, u64_at};
use std::collections::{BTreeMap, HashMap, HashSet};

const EIO: i32 = 5;
const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: u64,
    lookups: u64,
    /// The daemon's number of the file, the same in each daemon.
    file: u64,
    directory: bool,
    parent: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Open {
    id: u64,
    node: u64,
    file: u64,
    pub(super) writer: bool,
    directory: bool,
    /// Deaths before the open was answered, and restarts of the relay.
    deaths: u64,
    restarts: u64,
    /// The last version that was written through it.
    version: Option<u64>,
    position: u64,
    seen: HashSet<String>,
}

/// A request under way.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    opcode: Opcode,
    pub(super) node: u64,
    name: String,
    to: u64,
    new: String,
    handle: u64,
    flags: u32,
    version: u64,
    deaths: u64,
    tid: u32,
    killed: bool,
}

pub(super) struct Holder {
    pub(super) world: World,
    pub(super) nodes: Vec<Node>,
    names: BTreeMap<(u64, String), u64>,
    /// Names that the daemon has said are not there.
    absent: HashSet<(u64, String)>,
    pub(super) opens: Vec<Open>,
    pub(super) asked: BTreeMap<u64, Asked>,
    deaths: u64,
    restarts: u64,
    versions: u64,
    threads: u32,
    /// Versions that were written to a file.
    written: HashMap<u64, HashSet<u64>>,
    /// The newest version of a file whose FLUSH succeeded.
    flushed: HashMap<u64, u64>,
    /// Files that may be empty, and files whose path may have changed.
    emptied: HashSet<u64>,
    touched: HashSet<u64>,
}

/// The content of a file: which it is and which version, again and again.
fn content(file: u64, version: u64) -> Vec<u8> {
    [file.to_ne_bytes(), version.to_ne_bytes()]
        .concat()
        .repeat(4)
}

impl Holder {
    pub(super) fn new() -> Self {
        let mut world = World::new(&[("a", b""), ("b/a", b""), ("b/b", b""), ("c/a/b", b"")]);
        let files: Vec<u64> = world.bucket.files.keys().copied().collect();
        for file in files {
            world.bucket.files.insert(file, content(file, 0));
        }
        Self {
            world,
            nodes: Vec::new(),
            names: BTreeMap::new(),
            absent: HashSet::new(),
            opens: Vec::new(),
            asked: BTreeMap::new(),
            deaths: 0,
            restarts: 0,
            versions: 0,
            threads: 5000,
            written: HashMap::new(),
            flushed: HashMap::new(),
            emptied: HashSet::new(),
            touched: HashSet::new(),
        }
    }

    fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The `n`th directory, the root among them.
    fn directory(&self, n: usize) -> u64 {
        let all: Vec<u64> = std::iter::once(ROOT)
            .chain(
                self.nodes
                    .iter()
                    .filter(|node| node.directory)
                    .map(|node| node.id),
            )
            .collect();
        all[n % all.len()]
    }

    fn is_locked(&self, node: u64) -> bool {
        self.asked
            .values()
            .any(|asked| asked.opcode.name().is_some() && (asked.node == node || asked.to == node))
    }

    fn ask(&mut self, mut asked: Asked, body: &[u8]) {
        if !self.world.relay.wants_kernel() {
            return;
        }
        asked.deaths = self.deaths;
        // Each request has a thread of its own.
        self.threads += 1;
        asked.tid = self.threads;
        let unique = self
            .world
            .send_from(asked.tid, asked.opcode as u32, asked.node, body);
        self.asked.insert(unique, asked);
    }

    fn request(opcode: Opcode, node: u64) -> Asked {
        Asked {
            opcode,
            node,
            name: String::new(),
            to: 0,
            new: String::new(),
            handle: 0,
            flags: 0,
            version: 0,
            deaths: 0,
            tid: 0,
            killed: false,
        }
    }

    /// LOOKUP, CREATE, MKNOD, MKDIR or UNLINK, where the kernel would.
    pub(super) fn name(&mut self, opcode: Opcode, dir: usize, name: usize) {
        let (dir, name) = (self.directory(dir), NAMES[name % NAMES.len()].to_owned());
        if self.is_locked(dir) {
            return;
        }
        let key = (dir, name.clone());
        let held = self.names.get(&key).copied();
        let body = match opcode {
            Opcode::Lookup => Vec::new(),
            _ if opcode == Opcode::Unlink => {
                let Some(held) = held.and_then(|id| self.node(id)).cloned() else {
                    return;
                };
                if held.directory {
                    return;
                }
                self.touched.insert(held.file);
                Vec::new()
            }
            _ if !self.absent.contains(&key) => return,
            Opcode::Mkdir => vec![0; 8],
            _ => vec![0; 16],
        };
        let mut asked = Self::request(opcode, dir);
        asked.name = name.clone();
        self.ask(asked, &[body, zero_ended(&[&name])].concat());
    }

    pub(super) fn rename(&mut self, dir: usize, name: usize, to: usize, new: usize) {
        let (dir, to) = (self.directory(dir), self.directory(to));
        let (name, new) = (NAMES[name % NAMES.len()], NAMES[new % NAMES.len()]);
        let target = self
            .names
            .get(&(to, new.to_owned()))
            .and_then(|id| self.node(*id))
            .cloned();
        let source = self
            .names
            .get(&(dir, name.to_owned()))
            .and_then(|id| self.node(*id))
            .cloned();
        let (Some(source), false, false) = (source, self.is_locked(dir), self.is_locked(to)) else {
            return;
        };
        let is_absent = self.absent.contains(&(to, new.to_owned()));
        let replaces_file = target
            .as_ref()
            .is_some_and(|target| !target.directory && !source.directory && target.id != source.id);
        if !(is_absent || replaces_file) || self.is_below(to, source.id) {
            return;
        }
        self.touch_below(source.id);
        if let Some(target) = target {
            self.touched.insert(target.file);
        }
        let mut asked = Self::request(Opcode::Rename, dir);
        (asked.name, asked.to, asked.new) = (name.to_owned(), to, new.to_owned());
        self.ask(asked, &rename_in(to, name, new));
    }

    fn is_below(&self, mut node: u64, above: u64) -> bool {
        while node != ROOT {
            if node == above {
                return true;
            }
            node = self.node(node).map_or(ROOT, |node| node.parent);
        }
        false
    }

    fn touch_below(&mut self, above: u64) {
        let below: Vec<u64> = self
            .nodes
            .iter()
            .filter(|node| self.is_below(node.id, above))
            .map(|node| node.file)
            .collect();
        self.touched.extend(below);
    }

    pub(super) fn open(&mut self, n: usize, flags: u32) {
        let files: Vec<&Node> = self.nodes.iter().filter(|node| !node.directory).collect();
        let Some(node) = files.get(n % files.len().max(1)) else {
            return;
        };
        let mut asked = Self::request(Opcode::Open, node.id);
        asked.flags = flags;
        if flags & 0o1000 != 0 {
            let file = node.file;
            self.emptied.insert(file);
        }
        self.ask(asked, &open_in(flags));
    }

    pub(super) fn opendir(&mut self, n: usize) {
        let asked = Self::request(Opcode::Opendir, self.directory(n));
        self.ask(asked, &open_in(0));
    }

    pub(super) fn getattr(&mut self, n: usize) {
        if let Some(node) = self.nodes.get(n % self.nodes.len().max(1)) {
            let asked = Self::request(Opcode::Getattr, node.id);
            self.ask(asked, &[0; 16]);
        }
    }

    /// READ, WRITE, FLUSH, FSYNC or READDIR on an open file.
    pub(super) fn use_open(&mut self, n: usize, how: usize) {
        let Some(open) = self.opens.get(n % self.opens.len().max(1)).cloned() else {
            return;
        };
        let busy = |opcode: Opcode| {
            self.asked
                .values()
                .any(|asked| asked.opcode == opcode && asked.node == open.node)
        };
        match (open.directory, how % 8) {
            (true, _) if !busy(Opcode::Readdir) => self.on_open(Opcode::Readdir, &open),
            (true, _) => {}
            (false, 0..3) if open.writer && !busy(Opcode::Write) => {
                self.on_open(Opcode::Write, &open)
            }
            (false, 3) if open.writer => self.on_open(Opcode::Flush, &open),
            (false, 4) => self.on_open(Opcode::Fsync, &open),
            _ => self.on_open(Opcode::Read, &open),
        }
    }

    pub(super) fn on_open(&mut self, opcode: Opcode, open: &Open) {
        let mut asked = Self::request(opcode, open.node);
        asked.handle = open.id;
        let body = match opcode {
            Opcode::Read => read_in(open.id, 0, 4096).to_vec(),
            Opcode::Readdir => read_in(open.id, open.position, 64).to_vec(),
            Opcode::Write => {
                self.versions += 1;
                asked.version = self.versions;
                self.written
                    .entry(open.file)
                    .or_default()
                    .insert(self.versions);
                write_in(open.id, &content(open.file, self.versions))
            }
            _ => {
                // It saves what had been written when it was asked.
                asked.version = open.version.unwrap_or_default();
                handle_in(open.id).to_vec()
            }
        };
        self.ask(asked, &body);
    }

    pub(super) fn close(&mut self, n: usize) {
        let n = n % self.opens.len().max(1);
        let Some(open) = self.opens.get(n).cloned() else {
            return;
        };
        let is_used = self.asked.values().any(|asked| asked.handle == open.id);
        if is_used || !self.world.relay.wants_kernel() {
            return;
        }
        self.opens.remove(n);
        let opcode = match open.directory {
            true => Opcode::Releasedir,
            false => Opcode::Release,
        };
        self.on_open(opcode, &open);
    }

    /// FORGET, where the kernel would.
    pub(super) fn forget(&mut self, n: usize) {
        let Some(node) = self.nodes.get(n % self.nodes.len().max(1)).cloned() else {
            return;
        };
        let is_used = self.asked.values().any(|asked| {
            let held = |name: &str, dir| self.names.get(&(dir, name.to_owned())) == Some(&node.id);
            [asked.node, asked.to].contains(&node.id)
                || held(&asked.name, asked.node)
                || held(&asked.new, asked.to)
        });
        if is_used
            || self.opens.iter().any(|open| open.node == node.id)
            || self.names.keys().any(|(parent, _)| *parent == node.id)
        {
            return;
        }
        self.names.retain(|_, id| *id != node.id);
        self.absent.retain(|(parent, _)| *parent != node.id);
        self.nodes.retain(|other| other.id != node.id);
        self.world
            .send(opcode::FORGET, node.id, &node.lookups.to_ne_bytes());
    }

    pub(super) fn kill(&mut self) {
        self.hear();
        self.deaths += 1;
        self.world.kill();
    }

    pub(super) fn restart(&mut self) {
        self.deaths += 1;
        self.restarts += 1;
        self.world.daemon = None;
        self.world.kill_relay();
    }

    /// A request's caller gets a signal, or SIGKILL.
    pub(super) fn signal(&mut self, n: usize, kill: bool) {
        let uniques: Vec<u64> = self.asked.keys().copied().collect();
        let Some(unique) = uniques.get(n % uniques.len().max(1)) else {
            return;
        };
        if let Some(asked) = self.asked.get_mut(unique).filter(|_| kill) {
            asked.killed = true;
            self.world.ends.killed.insert(asked.tid);
        }
        self.world.interrupt(*unique);
    }

    /// Serves everything and hears the answers.
    pub(super) fn quiet(&mut self) {
        self.world.run();
        self.hear();
    }

    /// Takes the answers that came.
    pub(super) fn hear(&mut self) {
        let mut answers: Vec<(u64, Answer)> = self.world.answers.drain().collect();
        answers.sort_by_key(|(unique, _)| *unique);
        for (unique, answer) in answers {
            if let Some(asked) = self.asked.remove(&unique) {
                self.check_error(&asked, &answer);
                self.believe(&asked, &answer);
            }
        }
    }

    /// Whether the path of the node may be another one now, or none.
    fn in_doubt(&self, mut node: u64) -> bool {
        while node != ROOT {
            let Some(held) = self.node(node) else {
                return true;
            };
            let is_saved = self
                .world
                .bucket
                .paths
                .values()
                .any(|file| *file == held.file);
            if self.touched.contains(&held.file) || !is_saved {
                return true;
            }
            node = held.parent;
        }
        false
    }

    fn check_error(&self, asked: &Asked, answer: &Answer) {
        let Err(error) = *answer else { return };
        let died = self.deaths > asked.deaths;
        let open = self.opens.iter().find(|open| open.id == asked.handle);
        // FSYNC of a reader, too: what others wrote may be what it was to save.
        let failed = open.is_some_and(|open| {
            (open.writer || asked.opcode == Opcode::Fsync) && self.deaths > open.deaths
        });
        let changes = !asked.opcode.only_reads() || asked.flags & 0o1000 != 0;
        let in_doubt = self.in_doubt(asked.node) || (asked.to != 0 && self.in_doubt(asked.to));
        let restarted = self.restarts > 0 && died
            || open.is_some_and(|open| open.directory && open.restarts < self.restarts);
        let allowed = match error {
            EINTR => asked.killed,
            // The kernel looks the path up and tries again.
            116 => asked.handle == 0 && in_doubt,
            EIO => failed || in_doubt || restarted || (changes && died),
            ENOENT if asked.handle != 0 => false,
            ENOENT => {
                let held = self.names.get(&(asked.node, asked.name.clone()));
                in_doubt || held.is_none_or(|held| self.in_doubt(*held))
            }
            17 => matches!(asked.opcode, Opcode::Create | Opcode::Mkdir | Opcode::Mknod),
            _ => false,
        };
        if asked.opcode.closes() {
            // The kernel closes it, whatever it hears.
            assert!(self.restarts > 0 && died && error == EIO);
            return;
        }
        assert!(allowed, "the error {error} for {asked:?} on {open:?}");
    }

    fn believe(&mut self, asked: &Asked, answer: &Answer) {
        let key = (asked.node, asked.name.clone());
        let Ok(body) = answer else {
            if asked.opcode == Opcode::Lookup && *answer == Err(ENOENT) {
                self.names.remove(&key);
                self.absent.insert(key);
            } else if matches!(asked.opcode, Opcode::Create | Opcode::Mkdir | Opcode::Mknod) {
                self.absent.remove(&key);
            }
            return;
        };
        match asked.opcode {
            Opcode::Lookup | Opcode::Create | Opcode::Mkdir | Opcode::Mknod => {
                self.entry(asked, body);
            }
            Opcode::Unlink => {
                self.names.remove(&key);
                self.absent.insert(key);
            }
            Opcode::Rename => {
                if let Some(id) = self.names.remove(&key) {
                    self.names.insert((asked.to, asked.new.clone()), id);
                    self.absent.remove(&(asked.to, asked.new.clone()));
                    self.absent.insert(key);
                    for node in self.nodes.iter_mut().filter(|node| node.id == id) {
                        node.parent = asked.to;
                    }
                }
            }
            Opcode::Getattr => {
                let node = self.node(asked.node).expect("a node that is held");
                let is_same = u64_at(body, 16) == node.file;
                assert!(is_same || node.directory && self.touched.contains(&node.file));
            }
            Opcode::Open | Opcode::Opendir => {
                let file = self.node(asked.node).map_or(0, |node| node.file);
                self.opened(asked, asked.node, file, u64_at(body, 0));
            }
            Opcode::Read => self.check_bytes(asked, body),
            Opcode::Readdir => self.check_listing(asked, body),
            Opcode::Write | Opcode::Flush | Opcode::Fsync => self.changed(asked),
            _ => {}
        }
    }

    fn entry(&mut self, asked: &Asked, body: &[u8]) {
        let (id, file) = (u64_at(body, 0), u64_at(body, wire::entry::ATTR));
        let directory = body[wire::entry::ATTR + 61] & 0xf0 == 0x40;
        let key = (asked.node, asked.name.clone());
        self.absent.remove(&key);
        self.names.retain(|_, held| *held != id);
        self.names.insert(key, id);
        match self.nodes.iter_mut().find(|node| node.id == id) {
            Some(node) => {
                node.lookups += 1;
                node.parent = asked.node;
                let is_same = node.file == file && node.directory == directory;
                assert!(
                    is_same || node.directory && self.touched.contains(&node.file),
                    "{node:?} is {file} now"
                );
            }
            None => self.nodes.push(Node {
                id,
                lookups: 1,
                file,
                directory,
                parent: asked.node,
            }),
        }
        if asked.opcode != Opcode::Lookup {
            self.emptied.insert(file);
        }
        if asked.opcode == Opcode::Create {
            self.opened(asked, id, file, u64_at(body, wire::ENTRY_OUT));
        }
    }

    fn opened(&mut self, asked: &Asked, node: u64, file: u64, id: u64) {
        assert!(
            self.opens.iter().all(|open| open.id != id),
            "a handle twice"
        );
        self.opens.push(Open {
            id,
            node,
            file,
            writer: asked.flags != 0 || asked.opcode == Opcode::Create,
            directory: asked.opcode == Opcode::Opendir,
            deaths: self.deaths,
            restarts: self.restarts,
            version: None,
            position: 0,
            seen: HashSet::new(),
        });
    }

    fn check_bytes(&self, asked: &Asked, body: &[u8]) {
        let Some(open) = self.opens.iter().find(|open| open.id == asked.handle) else {
            return;
        };
        assert!(
            !open.writer || self.deaths == open.deaths,
            "a failed handle reads"
        );
        if body.is_empty() {
            assert!(self.emptied.contains(&open.file), "nothing of {open:?}");
            return;
        }
        let version = u64_at(body, 8);
        assert_eq!(body, content(open.file, version), "another file's bytes");
        let is_written = self
            .written
            .get(&open.file)
            .is_some_and(|all| all.contains(&version));
        assert!(is_written || version == 0);
    }

    fn check_listing(&mut self, asked: &Asked, body: &[u8]) {
        let Some(open) = self.opens.iter_mut().find(|open| open.id == asked.handle) else {
            return;
        };
        let entries = entries(body);
        for (name, position) in &entries {
            assert!(open.seen.insert(name.clone()), "{name} twice");
            open.position = *position;
        }
        if entries.is_empty() {
            open.position = 0;
            open.seen.clear();
        }
    }

    fn changed(&mut self, asked: &Asked) {
        let deaths = self.deaths;
        let Some(open) = self.opens.iter_mut().find(|open| open.id == asked.handle) else {
            return;
        };
        assert!(
            !open.writer || deaths == open.deaths,
            "a failed handle writes or saves"
        );
        match asked.opcode {
            Opcode::Write => open.version = Some(asked.version),
            _ if open.writer => {
                let newest = self.flushed.entry(open.file).or_default();
                *newest = asked.version.max(*newest);
            }
            _ => {}
        }
    }

    /// What was saved is in the bucket, or something newer.
    pub(super) fn check_saved(&self) {
        for (file, version) in &self.flushed {
            let content = self.world.bucket.files.get(file);
            if !self.emptied.contains(file) || !self.touched.contains(file) {
                let saved = content.map_or(0, |content| u64_at(content, 8));
                let emptied = content.is_some_and(Vec::is_empty) && self.emptied.contains(file);
                assert!(
                    saved >= *version || emptied,
                    "{file}: {saved} instead of {version}"
                );
            }
        }
    }
}
