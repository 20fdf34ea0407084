//! What the store holds: buckets, objects, uploads under way, and the keys that may reach them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use futures_core::Stream;
use s3s::StdError;
use s3s::crypto::{Checksum, Md5};
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};

use crate::uploads::Upload;

/// All contents behind one lock. No lock is held across a body's transfer: bodies are shared
/// slices, so that taking an object out costs a few reference counts whatever its size.
#[derive(Default)]
pub(crate) struct Contents(Mutex<State>);

#[derive(Default)]
pub(crate) struct State {
    pub(crate) buckets: BTreeMap<String, Bucket>,
    pub(crate) secrets: HashMap<String, String>,
    uploads_started: u64,
}

#[derive(Default)]
pub(crate) struct Bucket {
    pub(crate) objects: BTreeMap<String, Object>,
    /// By key and then by id, the order in which uploads are listed.
    pub(crate) uploads: BTreeMap<(String, String), Upload>,
    /// `None` lets every key in.
    pub(crate) allowed: Option<Vec<String>>,
}

#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) data: Data,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) modified: SystemTime,
    pub(crate) headers: Headers,
}

/// What the writer of an object said about it and readers get back.
#[derive(Clone, Default)]
pub(crate) struct Headers {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) data: Data,
    pub(crate) md5: [u8; 16],
    pub(crate) modified: SystemTime,
}

impl Contents {
    /// The state; a panic of another thread under the lock leaves it usable for the checks of a
    /// test that is about to fail anyway.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An id no other upload of this store has had.
    pub(crate) fn upload_id(&mut self) -> String {
        self.uploads_started += 1;
        format!("upload-{:06}", self.uploads_started)
    }
}

impl Bucket {
    /// Whether requests signed with this key may use the bucket.
    pub(crate) fn admits(&self, key_id: &str) -> bool {
        self.allowed
            .as_ref()
            .is_none_or(|allowed| allowed.iter().any(|id| id == key_id))
    }
}

impl Object {
    /// An object written in one piece, of this moment.
    pub(crate) fn whole(data: Bytes, md5: [u8; 16], headers: Headers) -> Self {
        Self {
            data: data.into(),
            etag: hex(&md5),
            modified: SystemTime::now(),
            headers,
        }
    }

    /// An object assembled of parts: its tag is the digest of the digests, with their number.
    pub(crate) fn assembled(parts: &[Part], headers: Headers) -> Self {
        let mut md5 = Md5::new();
        let mut data = Data::default();
        for part in parts {
            md5.update(&part.md5);
            data.append(&part.data);
        }
        Self {
            data,
            etag: format!("{}-{}", hex(&md5.finalize()), parts.len()),
            modified: SystemTime::now(),
            headers,
        }
    }
}

impl Part {
    pub(crate) fn new(data: Data, md5: [u8; 16]) -> Self {
        Self {
            data,
            md5,
            modified: SystemTime::now(),
        }
    }

    pub(crate) fn etag(&self) -> String {
        hex(&self.md5)
    }
}

/// A body, in the pieces it came in: the parts of a large upload are never joined, and a range of
/// it shares them.
#[derive(Clone, Default)]
pub(crate) struct Data {
    pieces: Vec<Bytes>,
    len: u64,
}

impl Data {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn append(&mut self, more: &Data) {
        self.pieces.extend(more.pieces.iter().cloned());
        self.len += more.len;
    }

    /// The bytes of a range that lies within the body.
    pub(crate) fn range(&self, range: Range<u64>) -> Data {
        let mut found = Data::default();
        let mut start = 0;
        for piece in &self.pieces {
            let end = start + piece.len() as u64;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                // Both lie within the piece, whose length is a usize.
                let piece = piece.slice((from - start) as usize..(to - start) as usize);
                found.len += piece.len() as u64;
                found.pieces.push(piece);
            }
            start = end;
        }
        found
    }

    pub(crate) fn md5(&self) -> [u8; 16] {
        let mut md5 = Md5::new();
        for piece in &self.pieces {
            md5.update(piece);
        }
        md5.finalize()
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    pub(crate) fn into_blob(self) -> StreamingBlob {
        StreamingBlob::new(Pieces {
            left: self.len,
            pieces: self.pieces.into_iter(),
        })
    }
}

impl From<Bytes> for Data {
    fn from(bytes: Bytes) -> Self {
        Self {
            len: bytes.len() as u64,
            pieces: vec![bytes],
        }
    }
}

/// A body on its way out, piece by piece.
struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl Stream for Pieces {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.pieces.next();
        if let Some(piece) = &piece {
            self.left -= piece.len() as u64;
        }
        Poll::Ready(piece.map(Ok))
    }
}

impl ByteStream for Pieces {
    fn remaining_length(&self) -> RemainingLength {
        usize::try_from(self.left)
            .map_or_else(|_| RemainingLength::unknown(), RemainingLength::new_exact)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
