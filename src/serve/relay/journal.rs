//! What has to outlive the process of a volume: where each node is, what is open, and what was
//! agreed at INIT. A file of records, each with its length and a checksum, appended to; the process
//! writes it anew when it has grown. One that was cut in the middle of a record is good up to there.

use crate::serve::relay::wire::{self, u32_at, u64_at};
use std::collections::HashMap;

/// The first bytes of a journal: what it is, and the version of its records.
pub const JOURNAL_HEADER: &[u8] = b"oss-nodes 1\n";

/// A record's length and checksum.
const FRAME: usize = 8;
/// The longest record: a name and some numbers.
const LONGEST: usize = 2 * wire::NAME_MAX + 256;

/// A change that outlives the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// `struct fuse_init_in` as offered to daemons, and `struct fuse_init_out` as agreed.
    Agreed { offer: [u8; 16], answer: [u8; 64] },
    /// The root's `struct fuse_attr_out`.
    Root { attr: [u8; 104] },
    /// A node is new, or has moved or lost its name.
    Node {
        id: u64,
        parent: u64,
        lookups: u64,
        /// `S_IFMT >> 12`.
        kind: u8,
        deleted: bool,
        name: &'a [u8],
    },
    /// The kernel has been told of the node so often, and has not forgotten it.
    Lookups { id: u64, lookups: u64 },
    /// Nobody names the node any more.
    Gone { id: u64 },
    /// A file or directory is open, or has failed.
    Opened {
        id: u64,
        node: u64,
        flags: u32,
        directory: bool,
        writer: bool,
        failed: bool,
    },
    /// It is closed.
    Closed { id: u64 },
}

impl Record<'_> {
    /// Appends the record as it stands in a journal.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&[0; FRAME]);
        match *self {
            Self::Agreed { offer, answer } => {
                into.push(1);
                into.extend_from_slice(&offer);
                into.extend_from_slice(&answer);
            }
            Self::Root { attr } => {
                into.push(7);
                into.extend_from_slice(&attr);
            }
            Self::Node {
                id,
                parent,
                lookups,
                kind,
                deleted,
                name,
            } => {
                into.push(2);
                numbers(into, &[id, parent, lookups]);
                into.extend_from_slice(&[kind, u8::from(deleted)]);
                into.extend_from_slice(name);
            }
            Self::Lookups { id, lookups } => {
                into.push(3);
                numbers(into, &[id, lookups]);
            }
            Self::Gone { id } => {
                into.push(4);
                numbers(into, &[id]);
            }
            Self::Opened {
                id,
                node,
                flags,
                directory,
                writer,
                failed,
            } => {
                into.push(5);
                numbers(into, &[id, node]);
                into.extend_from_slice(&flags.to_ne_bytes());
                into.extend([directory, writer, failed].map(u8::from));
            }
            Self::Closed { id } => {
                into.push(6);
                numbers(into, &[id]);
            }
        }
        let length = into.len() - start - FRAME;
        let sum = checksum(&into[start + FRAME..]);
        wire::set_u32(into, start, length as u32);
        wire::set_u32(into, start + 4, sum);
    }

    /// The record of that payload; none for one that no version wrote.
    fn decode(payload: &[u8]) -> Option<Record<'_>> {
        let (tag, body) = payload.split_first()?;
        let exact = |length| (body.len() == length).then_some(());
        Some(match tag {
            1 => {
                exact(80)?;
                Record::Agreed {
                    offer: *body.first_chunk()?,
                    answer: *body.last_chunk()?,
                }
            }
            2 if body.len() >= 26 => Record::Node {
                id: u64_at(body, 0),
                parent: u64_at(body, 8),
                lookups: u64_at(body, 16),
                kind: body[24],
                deleted: body[25] != 0,
                name: &body[26..],
            },
            3 => {
                exact(16)?;
                Record::Lookups {
                    id: u64_at(body, 0),
                    lookups: u64_at(body, 8),
                }
            }
            4 => {
                exact(8)?;
                Record::Gone {
                    id: u64_at(body, 0),
                }
            }
            5 => {
                exact(23)?;
                Record::Opened {
                    id: u64_at(body, 0),
                    node: u64_at(body, 8),
                    flags: u32_at(body, 16),
                    directory: body[20] != 0,
                    writer: body[21] != 0,
                    failed: body[22] != 0,
                }
            }
            6 => {
                exact(8)?;
                Record::Closed {
                    id: u64_at(body, 0),
                }
            }
            7 => {
                exact(104)?;
                Record::Root {
                    attr: *body.first_chunk()?,
                }
            }
            _ => return None,
        })
    }
}

/// A journal that cannot be read at all.
#[derive(Debug, PartialEq, Eq)]
pub struct JournalError;

impl std::fmt::Display for JournalError {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            to,
            "damaged, or not a journal of this version, which begins with \"oss-nodes 1\""
        )
    }
}

impl std::error::Error for JournalError {}

/// What a journal says in the end.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) agreed: Option<([u8; 16], [u8; 64])>,
    pub(super) root: Option<[u8; 104]>,
    /// The `Node` records by id.
    pub(super) nodes: HashMap<u64, Record<'a>>,
    /// The `Opened` records by id.
    pub(super) handles: HashMap<u64, Record<'a>>,
}

/// Reads the records; the last may be cut. An error where one is not as it was written: half of what
/// was known would make a successor believe wrong things, or wait for ever.
pub(super) fn read(journal: &[u8]) -> Result<Told<'_>, JournalError> {
    let mut rest = journal.strip_prefix(JOURNAL_HEADER).ok_or(JournalError)?;
    let mut told = Told::default();
    while rest.len() > FRAME {
        let (length, sum) = (u32_at(rest, 0) as usize, u32_at(rest, 4));
        if length > LONGEST {
            return Err(JournalError);
        }
        let Some(payload) = rest.get(FRAME..FRAME + length) else {
            // Cut: the process was killed as it wrote.
            break;
        };
        if checksum(payload) != sum {
            return Err(JournalError);
        }
        told.take(Record::decode(payload).ok_or(JournalError)?);
        rest = &rest[FRAME + length..];
    }
    if told.agreed.is_none() && journal.len() > JOURNAL_HEADER.len() {
        // Without it no daemon could be told INIT, and nothing would ever be answered.
        return Err(JournalError);
    }
    Ok(told)
}

impl<'a> Told<'a> {
    fn take(&mut self, record: Record<'a>) {
        match record {
            Record::Agreed { offer, answer } => self.agreed = Some((offer, answer)),
            Record::Root { attr } => self.root = Some(attr),
            Record::Node { id, .. } => {
                self.nodes.insert(id, record);
            }
            Record::Lookups { id, lookups: now } => {
                if let Some(Record::Node { lookups, .. }) = self.nodes.get_mut(&id) {
                    *lookups = now;
                }
            }
            Record::Gone { id } => {
                self.nodes.remove(&id);
            }
            Record::Opened { id, .. } => {
                self.handles.insert(id, record);
            }
            Record::Closed { id } => {
                self.handles.remove(&id);
            }
        }
    }
}

fn numbers(into: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        into.extend_from_slice(&number.to_ne_bytes());
    }
}

/// FNV-1a, 32 bits: against records that a crash cut, not against somebody who writes root's files.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, name: &[u8]) -> Record<'_> {
        Record::Node {
            id,
            parent: 1,
            lookups: 1,
            kind: 8,
            deleted: false,
            name,
        }
    }

    #[test]
    fn reads_what_was_written_up_to_a_cut() {
        let opened = Record::Opened {
            id: 3,
            node: 7,
            flags: 0o2,
            directory: false,
            writer: true,
            failed: false,
        };
        let agreed = Record::Agreed {
            offer: [1; 16],
            answer: [2; 64],
        };
        let records = [
            agreed,
            node(7, b"seven"),
            node(8, &[255; wire::NAME_MAX]),
            Record::Lookups { id: 7, lookups: 9 },
            Record::Lookups { id: 6, lookups: 9 },
            Record::Root { attr: [3; 104] },
            opened,
            Record::Opened {
                id: 4,
                node: 8,
                flags: 0,
                directory: true,
                writer: false,
                failed: false,
            },
            Record::Closed { id: 4 },
            Record::Gone { id: 8 },
        ];
        let mut journal = JOURNAL_HEADER.to_vec();
        let mut ends = Vec::new();
        for record in &records {
            record.encode(&mut journal);
            ends.push(journal.len());
        }
        let told = read(&journal).unwrap();
        assert_eq!(told.agreed, Some(([1; 16], [2; 64])));
        assert_eq!(told.root, Some([3; 104]));
        assert_eq!(told.nodes.len(), 1);
        assert!(matches!(
            told.nodes[&7],
            Record::Node {
                lookups: 9,
                name: b"seven",
                ..
            }
        ));
        assert_eq!(told.handles.values().collect::<Vec<_>>(), [&opened]);
        for cut in ends[8]..journal.len() {
            assert_eq!(read(&journal[..cut]).unwrap().nodes.len(), 2, "{cut}");
        }
        let mut broken = journal.clone();
        broken[ends[0] + 12] ^= 1;
        assert_eq!(read(&broken).unwrap_err(), JournalError);
    }

    #[test]
    fn refuses_what_says_nothing_of_init() {
        let mut journal = JOURNAL_HEADER.to_vec();
        assert!(read(&journal).unwrap().agreed.is_none());
        Record::Gone { id: 8 }.encode(&mut journal);
        assert_eq!(read(&journal).unwrap_err(), JournalError);
    }

    #[test]
    fn refuses_another_version_and_survives_any_length() {
        assert_eq!(read(b"oss-nodes 2\n").unwrap_err(), JournalError);
        assert_eq!(read(b"").unwrap_err(), JournalError);
        for length in [0, 1, 27, u32::MAX] {
            let mut journal = JOURNAL_HEADER.to_vec();
            journal.extend_from_slice(&length.to_ne_bytes());
            journal.extend_from_slice(&[0; 40]);
            assert_eq!(read(&journal).unwrap_err(), JournalError, "{length}");
        }
    }
}
