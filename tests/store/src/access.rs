//! Who may do what: secrets for the signatures, and the keys each bucket admits.

use std::sync::Arc;

use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use crate::objects::{Bucket, Contents, State};
use crate::oss::Verified;

/// The keys and the policy of a store, as the protocol's front end asks for them.
#[derive(Clone)]
pub(crate) struct Keys(pub(crate) Arc<Contents>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, key_id: &str) -> S3Result<SecretKey> {
        match self.0.lock().secrets.get(key_id) {
            Some(secret) => Ok(secret.as_str().into()),
            None => Err(s3_error!(
                InvalidAccessKeyId,
                "The access key id you provided does not exist in our records."
            )),
        }
    }
}

#[async_trait::async_trait]
impl S3Access for Keys {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let key_id = match cx.credentials() {
            Some(credentials) => Some(credentials.access_key.clone()),
            None => cx
                .extensions_mut()
                .get::<Verified>()
                .map(|Verified(id)| id.clone()),
        };
        let Some(key_id) = key_id else {
            return Err(s3_error!(AccessDenied, "Anonymous access is denied."));
        };
        match cx.s3_path().get_bucket_name() {
            Some(name) => self.0.lock().admitting(name, &key_id).map(drop),
            None => Ok(()),
        }
    }
}

impl State {
    /// The bucket, if it exists and admits the key.
    pub(crate) fn admitting(&mut self, bucket: &str, key_id: &str) -> S3Result<&mut Bucket> {
        let bucket = self.bucket(bucket)?;
        if bucket.admits(key_id) {
            Ok(bucket)
        } else {
            Err(s3_error!(
                AccessDenied,
                "The bucket does not admit this access key."
            ))
        }
    }

    /// The bucket, if it exists.
    pub(crate) fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        let bucket = self.buckets.get_mut(name);
        bucket.ok_or_else(|| s3_error!(NoSuchBucket, "The specified bucket does not exist."))
    }
}
