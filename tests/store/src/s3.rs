//! The operations of the protocol, as far as file systems over S3 use them.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};

use crate::body::receive;
use crate::listing;
use crate::lookup::{check_reading, meets};
use crate::objects::{Contents, Data, Headers, Object, Part, hex};
use crate::uploads::{self, Upload};

/// The store behind the protocol's front end, which has verified signatures and access to the
/// bucket addressed before it calls.
pub(crate) struct Operations(pub(crate) Arc<Contents>);

fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

fn tag(etag: &str) -> Option<ETag> {
    Some(ETag::Strong(etag.to_owned()))
}

fn length(len: u64) -> S3Result<Option<i64>> {
    i64::try_from(len)
        .map(Some)
        .map_err(|_| s3_error!(InternalError))
}

fn part_number(number: i32) -> S3Result<i32> {
    if (1..=10_000).contains(&number) {
        Ok(number)
    } else {
        Err(s3_error!(InvalidArgument, "Part numbers are 1 to 10000."))
    }
}

/// Takes [`Headers`] out of the input of an operation that writes; the inputs share the names of
/// their fields, but no type.
macro_rules! headers {
    ($input:expr) => {
        Headers {
            content_type: $input.content_type,
            content_encoding: $input.content_encoding,
            content_disposition: $input.content_disposition,
            content_language: $input.content_language,
            cache_control: $input.cache_control,
            metadata: $input.metadata.unwrap_or_default().into_iter().collect(),
        }
    };
}

/// The output of an operation that reads, of the object's headers and the fields given.
macro_rules! output {
    ($type:ident, $object:expr, $($field:ident: $value:expr),*) => {
        $type {
            $($field: $value,)*
            accept_ranges: Some("bytes".to_owned()),
            e_tag: tag(&$object.etag),
            last_modified: Some($object.modified.into()),
            content_type: Some($object.headers.content_type.unwrap_or_else(|| "binary/octet-stream".to_owned())),
            content_encoding: $object.headers.content_encoding,
            content_disposition: $object.headers.content_disposition,
            content_language: $object.headers.content_language,
            cache_control: $object.headers.cache_control,
            metadata: Some($object.headers.metadata.into_iter().collect()),
            ..$type::default()
        }
    };
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn head_bucket(
        &self,
        request: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.0.lock().bucket(&request.input.bucket)?;
        ok(HeadBucketOutput::default())
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.0.lock().bucket(&request.input.bucket)?;
        ok(GetBucketLocationOutput::default())
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let mut state = self.0.lock();
        let bucket = state.bucket(&request.input.bucket)?;
        ok(listing::first(&bucket.objects, request.input)?)
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let mut state = self.0.lock();
        let bucket = state.bucket(&request.input.bucket)?;
        ok(listing::second(&bucket.objects, request.input)?)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let object = self.0.lock().object(&input.bucket, &input.key)?;
        check_reading(
            &object,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        ok(output!(HeadObjectOutput, object, content_length: length(object.data.len())?))
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.0.lock().object(&input.bucket, &input.key)?;
        check_reading(
            &object,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        )?;
        let all = object.data.len();
        let (data, range) = match input.range {
            Some(range) => {
                let range = range.check(all)?;
                let header = format!("bytes {}-{}/{all}", range.start, range.end - 1);
                (object.data.range(range), Some(header))
            }
            None => (object.data, None),
        };
        let content_length = length(data.len())?;
        ok(output!(GetObjectOutput, object,
            content_length: content_length, content_range: range, body: Some(data.into_blob())))
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let (data, md5) = receive(
            input.body,
            input.content_length,
            input.content_md5.as_deref(),
        )
        .await?;
        let object = Object::whole(data, md5, headers!(input));
        let e_tag = tag(&object.etag);
        let mut state = self.0.lock();
        let objects = &mut state.bucket(&input.bucket)?.objects;
        let present = objects.get(&input.key);
        if meets(
            present,
            input.if_match.as_ref(),
            input.if_none_match.as_ref(),
        ) != (true, true)
        {
            return Err(s3_error!(PreconditionFailed));
        }
        objects.insert(input.key, object);
        ok(PutObjectOutput {
            e_tag,
            ..PutObjectOutput::default()
        })
    }

    async fn copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let mut object = self.0.lock().source(&request.input.copy_source, &request)?;
        let input = request.input;
        let replace = input
            .metadata_directive
            .is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let itself = match &input.copy_source {
            CopySource::Bucket { bucket, key, .. } => {
                **bucket == *input.bucket && **key == *input.key
            }
            _ => false,
        };
        if itself && !replace {
            return Err(s3_error!(
                InvalidRequest,
                "A copy of an object to itself must change it."
            ));
        }
        let (wanted, unwanted) = (
            &input.copy_source_if_match,
            &input.copy_source_if_none_match,
        );
        if meets(Some(&object), wanted.as_ref(), unwanted.as_ref()) != (true, true) {
            return Err(s3_error!(PreconditionFailed));
        }
        if replace {
            object.headers = headers!(input);
        }
        if object.etag.contains('-') {
            // A copy is an object written in one piece, and its tag says so.
            object.etag = hex(&object.data.md5());
        }
        object.modified = std::time::SystemTime::now();
        let result = CopyObjectResult {
            e_tag: tag(&object.etag),
            last_modified: Some(object.modified.into()),
            ..CopyObjectResult::default()
        };
        let mut state = self.0.lock();
        let bucket = state.bucket(&input.bucket)?;
        bucket.objects.insert(input.key, object);
        ok(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        })
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let mut state = self.0.lock();
        state
            .bucket(&request.input.bucket)?
            .objects
            .remove(&request.input.key);
        ok(DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut state = self.0.lock();
        let objects = &mut state.bucket(&request.input.bucket)?.objects;
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            objects.remove(&object.key);
            deleted.push(DeletedObject {
                key: Some(object.key),
                ..DeletedObject::default()
            });
        }
        let quiet = request.input.delete.quiet == Some(true);
        ok(DeleteObjectsOutput {
            deleted: (!quiet).then_some(deleted),
            ..DeleteObjectsOutput::default()
        })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.0.lock();
        let id = state.upload_id();
        let upload = Upload::new(headers!(input));
        let bucket = state.bucket(&input.bucket)?;
        bucket
            .uploads
            .insert((input.key.clone(), id.clone()), upload);
        ok(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let number = part_number(input.part_number)?;
        self.0
            .lock()
            .upload(&input.bucket, &input.key, &input.upload_id)?;
        let (data, md5) = receive(
            input.body,
            input.content_length,
            input.content_md5.as_deref(),
        )
        .await?;
        let part = Part::new(data.into(), md5);
        let e_tag = tag(&part.etag());
        let mut state = self.0.lock();
        let upload = state.upload(&input.bucket, &input.key, &input.upload_id)?;
        upload.parts.insert(number, part);
        ok(UploadPartOutput {
            e_tag,
            ..UploadPartOutput::default()
        })
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let number = part_number(request.input.part_number)?;
        let source = self.0.lock().source(&request.input.copy_source, &request)?;
        let input = request.input;
        let data: Data = match &input.copy_source_range {
            Some(range) => {
                let range = Range::parse(range).map_err(|_| s3_error!(InvalidArgument))?;
                source.data.range(range.check(source.data.len())?)
            }
            None => source.data,
        };
        let md5 = data.md5();
        let part = Part::new(data, md5);
        let result = CopyPartResult {
            e_tag: tag(&part.etag()),
            last_modified: Some(part.modified.into()),
            ..CopyPartResult::default()
        };
        let mut state = self.0.lock();
        let upload = state.upload(&input.bucket, &input.key, &input.upload_id)?;
        upload.parts.insert(number, part);
        ok(UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..UploadPartCopyOutput::default()
        })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.0.lock();
        let listed = input
            .multipart_upload
            .and_then(|upload| upload.parts)
            .unwrap_or_default();
        let upload = state.upload(&input.bucket, &input.key, &input.upload_id)?;
        let object = upload.assemble(&listed)?;
        let e_tag = tag(&object.etag);
        let bucket = state.bucket(&input.bucket)?;
        bucket.uploads.remove(&(input.key.clone(), input.upload_id));
        bucket.objects.insert(input.key.clone(), object);
        ok(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag,
            ..CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let mut state = self.0.lock();
        state.upload(&input.bucket, &input.key, &input.upload_id)?;
        let uploads = &mut state.bucket(&input.bucket)?.uploads;
        uploads.remove(&(input.key, input.upload_id));
        ok(AbortMultipartUploadOutput::default())
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let mut state = self.0.lock();
        let bucket = state.bucket(&request.input.bucket)?;
        ok(uploads::list(&bucket.uploads, request.input)?)
    }

    async fn list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let mut state = self.0.lock();
        let upload = state.upload(&input.bucket, &input.key, &input.upload_id)?;
        ok(upload.list(input)?)
    }
}
