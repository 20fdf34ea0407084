//! The record of what clients asked and what they got.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many requests the record keeps; older ones go, so that a store that serves for days does
/// not grow.
pub const RECORDED: usize = 100_000;

/// A request as it arrived, before any check of its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method, in capitals.
    pub method: String,
    /// The bucket addressed by path or host; empty for the root.
    pub bucket: String,
    /// The key, unescaped; empty for the bucket itself.
    pub key: String,
    /// The query as sent, without the question mark.
    pub query: String,
    /// The id of the key the request claims to be signed with; empty if it is not signed.
    pub key_id: String,
    /// The status answered; `None` as long as there is no answer, and forever if the connection
    /// was closed instead.
    pub status: Option<u16>,
}

/// One line: method, path, key id and status.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} /{}", self.method, self.bucket)?;
        if !self.key.is_empty() {
            // Names may hold line breaks, and a request is to stay one line.
            write!(f, "/{}", self.key.escape_debug())?;
        }
        if !self.query.is_empty() {
            write!(f, "?{}", self.query)?;
        }
        let key_id = match self.key_id.as_str() {
            "" => "-",
            id => id,
        };
        match self.status {
            Some(status) => write!(f, " {key_id} {status}"),
            None => write!(f, " {key_id} -"),
        }
    }
}

type Watcher = Box<dyn Fn(&Request) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Record {
    requests: Mutex<Requests>,
    changed: Condvar,
    watcher: Mutex<Option<Watcher>>,
}

#[derive(Default)]
struct Requests {
    kept: VecDeque<Request>,
    /// How many requests came before the first one kept.
    gone: u64,
}

/// A request in the record whose end is still open.
pub(crate) struct Ticket(u64);

impl Record {
    pub(crate) fn begin(&self, request: Request) -> Ticket {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.kept.len() == RECORDED {
            requests.kept.pop_front();
            requests.gone += 1;
        }
        requests.kept.push_back(request);
        self.changed.notify_all();
        Ticket(requests.gone + requests.kept.len() as u64 - 1)
    }

    /// Ends a request: with a status, or with none when the connection is closed instead.
    pub(crate) fn finish(&self, ticket: &Ticket, status: Option<u16>) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ticket.0.checked_sub(requests.gone);
        let request = place
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| requests.kept.get_mut(place));
        let Some(request) = request else {
            return;
        };
        request.status = status;
        let request = request.clone();
        drop(requests);
        self.changed.notify_all();
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watcher.as_ref() {
            watcher(&request);
        }
    }

    pub(crate) fn all(&self) -> Vec<Request> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.kept.iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.gone += requests.kept.len() as u64;
        requests.kept.clear();
    }

    pub(crate) fn watch(&self, watcher: Watcher) {
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
    }

    pub(crate) fn wait(&self, limit: Duration, wanted: impl Fn(&Request) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if requests.kept.iter().any(&wanted) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(requests, left);
            requests = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
