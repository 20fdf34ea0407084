//! Finding what a request names, with the errors that go with not finding it.

use s3s::dto::{CopySource, ETagCondition};
use s3s::{S3Request, S3Result, s3_error};

use crate::objects::{Object, State};
use crate::oss::Verified;
use crate::uploads::Upload;

impl State {
    pub(crate) fn object(&mut self, bucket: &str, key: &str) -> S3Result<Object> {
        let object = self.bucket(bucket)?.objects.get(key).cloned();
        object.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// What a copy reads: its bucket must admit the key that signed the request for another one.
    pub(crate) fn source<T>(
        &mut self,
        source: &CopySource,
        request: &S3Request<T>,
    ) -> S3Result<Object> {
        let CopySource::Bucket { bucket, key, .. } = source else {
            return Err(s3_error!(
                NotImplemented,
                "Only buckets can be copied from."
            ));
        };
        let key_id = request
            .credentials
            .as_ref()
            .map(|credentials| credentials.access_key.as_str())
            .or_else(|| request.extensions.get().map(|Verified(id)| id.as_str()));
        self.admitting(bucket, key_id.unwrap_or_default())?;
        self.object(bucket, key)
    }

    pub(crate) fn upload(&mut self, bucket: &str, key: &str, id: &str) -> S3Result<&mut Upload> {
        let upload = self
            .bucket(bucket)?
            .uploads
            .get_mut(&(key.to_owned(), id.to_owned()));
        upload.ok_or_else(|| {
            s3_error!(
                NoSuchUpload,
                "The specified multipart upload does not exist."
            )
        })
    }
}

/// Whether an object, if there is one, meets the conditions on its tag: to have the one wanted,
/// and not to have the other.
pub(crate) fn meets(
    object: Option<&Object>,
    wanted: Option<&ETagCondition>,
    unwanted: Option<&ETagCondition>,
) -> (bool, bool) {
    let is = |condition: &ETagCondition| {
        object.is_some_and(|object| match condition.as_etag() {
            Some(etag) => etag.value().eq_ignore_ascii_case(&object.etag),
            None => true,
        })
    };
    (wanted.is_none_or(is), !unwanted.is_some_and(is))
}

pub(crate) fn check_reading(
    object: &Object,
    wanted: Option<&ETagCondition>,
    unwanted: Option<&ETagCondition>,
) -> S3Result<()> {
    match meets(Some(object), wanted, unwanted) {
        (false, _) => Err(s3_error!(PreconditionFailed)),
        (_, false) => Err(s3_error!(NotModified)),
        _ => Ok(()),
    }
}
