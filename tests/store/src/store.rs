//! The handle tests hold.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use s3s::crypto::{Checksum, Md5};

use crate::faults::{FaultId, Rule};
use crate::objects::{Bucket, Headers, Object};
use crate::record::Request;
use crate::server::{Server, Shared};

/// A running store. When it is dropped the port is closed, requests under way are cut off, hanging
/// ones included, and its threads have ended.
pub struct Store {
    server: Server,
    shared: Arc<Shared>,
}

/// What is known of an object besides its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The length of the contents.
    pub size: u64,
    /// The entity tag, without quotes.
    pub etag: String,
    /// The time of the last write, metadata included.
    pub modified: SystemTime,
    /// The content type, if the writer gave one.
    pub content_type: Option<String>,
    /// The user metadata, by names in lower case without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
}

impl Store {
    /// Starts an empty store without keys on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When there is no port or no thread to be had: no test could go on.
    pub fn start() -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into())
            .expect("a store on a free port of 127.0.0.1")
    }

    /// Starts an empty store without keys on this address.
    ///
    /// # Errors
    /// When the address cannot be bound or a thread not be started.
    pub fn start_on(address: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let server = Server::start(address, Arc::clone(&shared))?;
        Ok(Self { server, shared })
    }

    /// The base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Adds a key, or gives an existing one another secret.
    pub fn add_key(&self, id: &str, secret: &str) {
        let mut state = self.shared.contents.lock();
        state.secrets.insert(id.to_owned(), secret.to_owned());
    }

    /// Removes a key; requests signed with it get `InvalidAccessKeyId` from now on.
    pub fn remove_key(&self, id: &str) {
        self.shared.contents.lock().secrets.remove(id);
    }

    /// Creates an empty bucket that admits every key; an existing one stays as it is.
    pub fn create_bucket(&self, name: &str) {
        let mut state = self.shared.contents.lock();
        state.buckets.entry(name.to_owned()).or_default();
    }

    /// Removes a bucket and what is in it.
    pub fn remove_bucket(&self, name: &str) {
        self.shared.contents.lock().buckets.remove(name);
    }

    /// Lets only these keys use a bucket; the others get `AccessDenied`.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn restrict(&self, bucket: &str, key_ids: &[&str]) {
        let allowed = key_ids.iter().map(|id| id.to_string()).collect();
        self.with(bucket, |bucket| bucket.allowed = Some(allowed));
    }

    /// Lets every key use a bucket again.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn unrestrict(&self, bucket: &str) {
        self.with(bucket, |bucket| bucket.allowed = None);
    }

    /// Puts an object without going through the protocol.
    ///
    /// # Panics
    /// When there is no such bucket.
    pub fn put(&self, bucket: &str, key: &str, contents: impl Into<Vec<u8>>) {
        let contents = Bytes::from(contents.into());
        let md5 = Md5::checksum(&contents);
        let object = Object::whole(contents, md5, Headers::default());
        self.with(bucket, |bucket| {
            bucket.objects.insert(key.to_owned(), object)
        });
    }

    /// The contents of an object; `None` if there is no such object or bucket.
    pub fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.find(bucket, key).map(|object| object.data.to_vec())
    }

    /// What is known of an object besides its contents.
    pub fn info(&self, bucket: &str, key: &str) -> Option<Info> {
        let object = self.find(bucket, key)?;
        Some(Info {
            size: object.data.len(),
            etag: object.etag,
            modified: object.modified,
            content_type: object.headers.content_type,
            metadata: object.headers.metadata,
        })
    }

    /// The keys of all objects in a bucket, in order; none if there is no such bucket.
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let state = self.shared.contents.lock();
        let objects = state.buckets.get(bucket).map(|bucket| &bucket.objects);
        objects.map_or_else(Vec::new, |objects| objects.keys().cloned().collect())
    }

    /// How many uploads of parts are under way in a bucket, neither completed nor aborted.
    pub fn uploads(&self, bucket: &str) -> usize {
        let state = self.shared.contents.lock();
        state
            .buckets
            .get(bucket)
            .map_or(0, |bucket| bucket.uploads.len())
    }

    /// The requests so far in the order of their arrival, at most the [last ones](crate::RECORDED).
    pub fn requests(&self) -> Vec<Request> {
        self.shared.record.all()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.record.clear();
    }

    /// Waits until the record has a request like the one wanted, and tells whether it had one
    /// before the time was over. A request is looked at when it arrives and when it has got its
    /// status.
    pub fn wait_for_request(&self, limit: Duration, wanted: impl Fn(&Request) -> bool) -> bool {
        self.shared.record.wait(limit, wanted)
    }

    /// Calls this with every request that is finished, from the store's threads; only one watcher
    /// at a time.
    pub fn watch(&self, watcher: impl Fn(&Request) + Send + Sync + 'static) {
        self.shared.record.watch(Box::new(watcher));
    }

    /// Injects a fault into requests for a bucket, which need not exist. Several faults apply in
    /// the order of their injection until one of them ends the request.
    pub fn inject(&self, bucket: &str, rule: impl Into<Rule>) -> FaultId {
        self.shared.faults.inject(Some(bucket), rule.into())
    }

    /// Injects a fault into all requests.
    pub fn inject_everywhere(&self, rule: impl Into<Rule>) -> FaultId {
        self.shared.faults.inject(None, rule.into())
    }

    /// Removes a fault; requests that wait in it go on.
    pub fn remove_fault(&self, fault: FaultId) {
        self.shared.faults.remove(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    fn find(&self, bucket: &str, key: &str) -> Option<Object> {
        let state = self.shared.contents.lock();
        state.buckets.get(bucket)?.objects.get(key).cloned()
    }

    fn with<T>(&self, bucket: &str, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut state = self.shared.contents.lock();
        let found = state.buckets.get_mut(bucket);
        change(found.unwrap_or_else(|| panic!("no bucket {bucket:?} in the store")))
    }
}
