//! Faults on demand: what a bucket, or the whole store, does instead of answering properly.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The body of every answer under [`Fault::Garbage`].
pub const GARBAGE: &str = "<html><body>Please sign in to use this network.</body></html>\n";

/// A way to go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Waits this long and goes on with what else applies, at last with the proper answer.
    Delay(Duration),
    /// Waits until the fault is removed and then goes on; the store's end ends the wait too.
    Hang,
    /// Answers with this status and the error body that belongs to it.
    Status(u16),
    /// Answers 301 with this location.
    Redirect(String),
    /// Answers 200 with [`GARBAGE`], whatever was asked, as a network's sign-in page does.
    Garbage,
    /// Closes the connection without an answer.
    Close,
}

impl Fault {
    /// See [`Rule::after`].
    pub fn after(self, requests: u64) -> Rule {
        Rule::from(self).after(requests)
    }

    /// See [`Rule::times`].
    pub fn times(self, requests: u64) -> Rule {
        Rule::from(self).times(requests)
    }

    /// See [`Rule::only`].
    pub fn only(self, methods: &[&str]) -> Rule {
        Rule::from(self).only(methods)
    }
}

/// A fault and the requests it applies to: all, as long as nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    fault: Fault,
    after: u64,
    times: Option<u64>,
    methods: Vec<String>,
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            after: 0,
            times: None,
            methods: Vec::new(),
        }
    }
}

impl Rule {
    /// Lets that many requests pass first. Requests of other methods or buckets do not count.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.after = requests;
        self
    }

    /// Ends after that many requests: a fault that passes.
    #[must_use]
    pub fn times(mut self, requests: u64) -> Self {
        self.times = Some(requests);
        self
    }

    /// Applies to these HTTP methods only.
    #[must_use]
    pub fn only(mut self, methods: &[&str]) -> Self {
        self.methods = methods.iter().map(|method| method.to_string()).collect();
        self
    }
}

/// Names an injected fault, to remove it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(u64);

/// The end a request comes to by a fault.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Status(u16),
    Redirect(String),
    Garbage,
    Close,
}

pub(crate) struct Faults {
    rules: Mutex<Rules>,
    removed: watch::Sender<()>,
}

#[derive(Default)]
struct Rules {
    active: Vec<Active>,
    injected: u64,
}

struct Active {
    id: FaultId,
    /// `None` is the whole store.
    bucket: Option<String>,
    rule: Rule,
    seen: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            rules: Mutex::default(),
            removed: watch::Sender::new(()),
        }
    }
}

impl Faults {
    pub(crate) fn inject(&self, bucket: Option<&str>, rule: Rule) -> FaultId {
        let mut rules = self.rules();
        rules.injected += 1;
        let id = FaultId(rules.injected);
        rules.active.push(Active {
            id,
            bucket: bucket.map(str::to_owned),
            rule,
            seen: 0,
        });
        id
    }

    pub(crate) fn remove(&self, id: FaultId) {
        self.rules().active.retain(|active| active.id != id);
        self.removed.send_replace(());
    }

    pub(crate) fn clear(&self) {
        self.rules().active.clear();
        self.removed.send_replace(());
    }

    /// Lets a request go through the faults that apply to it, in the order of their injection;
    /// `None` means that it is to be answered properly.
    pub(crate) async fn pass(&self, bucket: &str, method: &str) -> Option<End> {
        for (id, fault) in self.due(bucket, method) {
            match fault {
                Fault::Delay(time) => {
                    // Whether the time is over or the fault is gone, the request goes on.
                    let _ = timeout(time, self.removal(id)).await;
                }
                Fault::Hang => self.removal(id).await,
                Fault::Status(status) => return Some(End::Status(status)),
                Fault::Redirect(location) => return Some(End::Redirect(location)),
                Fault::Garbage => return Some(End::Garbage),
                Fault::Close => return Some(End::Close),
            }
        }
        None
    }

    /// The faults that apply to a request, which is counted by this.
    fn due(&self, bucket: &str, method: &str) -> Vec<(FaultId, Fault)> {
        let mut rules = self.rules();
        let applies = |active: &&mut Active| {
            let methods = &active.rule.methods;
            active.bucket.as_deref().is_none_or(|name| name == bucket)
                && (methods.is_empty() || methods.iter().any(|name| name == method))
        };
        let mut due = Vec::new();
        for active in rules.active.iter_mut().filter(applies) {
            let Rule { after, times, .. } = active.rule;
            let reached = active.seen >= after;
            let over = times.is_some_and(|times| active.seen >= after.saturating_add(times));
            if reached && !over {
                due.push((active.id, active.rule.fault.clone()));
            }
            active.seen += 1;
        }
        due
    }

    async fn removal(&self, id: FaultId) {
        let gone = |_: &()| self.rules().active.iter().all(|active| active.id != id);
        // Fails only without a sender, and the sender lives as long as this does.
        let _ = self.removed.subscribe().wait_for(gone).await;
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(faults: &Faults, bucket: &str, method: &str) -> Vec<Fault> {
        let due = faults.due(bucket, method);
        due.into_iter().map(|(_, fault)| fault).collect()
    }

    #[test]
    fn counts_only_the_requests_it_applies_to() {
        let faults = Faults::default();
        faults.inject(Some("one"), Fault::Close.only(&["PUT"]).after(1).times(2));
        for (bucket, method, expected) in [
            ("one", "GET", 0),
            ("two", "PUT", 0),
            ("one", "PUT", 0),
            ("one", "PUT", 1),
            ("one", "GET", 0),
            ("one", "PUT", 1),
            ("one", "PUT", 0),
        ] {
            assert_eq!(
                due(&faults, bucket, method).len(),
                expected,
                "{method} {bucket}"
            );
        }
    }

    #[test]
    fn applies_in_the_order_of_injection_until_removed() {
        let faults = Faults::default();
        let first = faults.inject(None, Fault::Garbage.into());
        faults.inject(Some("one"), Fault::Status(503).into());
        assert_eq!(
            due(&faults, "one", "GET"),
            [Fault::Garbage, Fault::Status(503)]
        );
        assert_eq!(due(&faults, "", "GET"), [Fault::Garbage]);
        faults.remove(first);
        assert_eq!(due(&faults, "one", "GET"), [Fault::Status(503)]);
        faults.clear();
        assert_eq!(due(&faults, "one", "GET"), []);
    }
}
