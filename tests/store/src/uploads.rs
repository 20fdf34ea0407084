//! Multipart uploads: their parts, their listing and what becomes of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::SystemTime;

use s3s::dto::{
    CompletedPart, ETag, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput,
    ListPartsOutput, MultipartUpload, Part as ListedPart,
};
use s3s::{S3Result, s3_error};

use crate::list::page_size;
use crate::listing::Names;
use crate::objects::{Headers, Object, Part};

/// An upload under way.
pub(crate) struct Upload {
    started: SystemTime,
    headers: Headers,
    pub(crate) parts: BTreeMap<i32, Part>,
}

impl Upload {
    pub(crate) fn new(headers: Headers) -> Self {
        Self {
            started: SystemTime::now(),
            headers,
            parts: BTreeMap::new(),
        }
    }

    /// The object made of the parts listed. Parts may be of any size: what is too small differs
    /// between services.
    pub(crate) fn assemble(&self, listed: &[CompletedPart]) -> S3Result<Object> {
        if listed.is_empty() {
            return Err(s3_error!(MalformedXML, "At least one part must be listed."));
        }
        if !listed.is_sorted_by(|one, next| one.part_number < next.part_number) {
            return Err(s3_error!(InvalidPartOrder));
        }
        let part = |listed: &CompletedPart| {
            let part = self.parts.get(&listed.part_number?)?;
            let same = listed
                .e_tag
                .as_ref()
                .is_some_and(|etag| etag.value().eq_ignore_ascii_case(&part.etag()));
            same.then(|| part.clone())
        };
        let parts: Option<Vec<Part>> = listed.iter().map(part).collect();
        let parts = parts
            .ok_or_else(|| s3_error!(InvalidPart, "A part listed is not one that was uploaded."))?;
        Ok(Object::assembled(&parts, self.headers.clone()))
    }

    pub(crate) fn list(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let max = page_size(input.max_parts).ok_or_else(|| s3_error!(InvalidArgument))?;
        let after = input.part_number_marker.unwrap_or(0);
        let mut later = self.parts.range((Bound::Excluded(after), Bound::Unbounded));
        let parts: Vec<ListedPart> = later
            .by_ref()
            .take(max)
            .map(|(number, part)| ListedPart {
                part_number: Some(*number),
                size: i64::try_from(part.data.len()).ok(),
                e_tag: Some(ETag::Strong(part.etag())),
                last_modified: Some(part.modified.into()),
                ..ListedPart::default()
            })
            .collect();
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(after),
            next_part_number_marker: parts.last().and_then(|part| part.part_number),
            max_parts: i32::try_from(max).ok(),
            is_truncated: Some(later.next().is_some()),
            parts: Some(parts),
            ..ListPartsOutput::default()
        })
    }
}

/// The uploads under way in a bucket, by key and id.
pub(crate) fn list(
    uploads: &BTreeMap<(String, String), Upload>,
    input: ListMultipartUploadsInput,
) -> S3Result<ListMultipartUploadsOutput> {
    if input.delimiter.is_some() {
        return Err(s3_error!(
            NotImplemented,
            "Uploads are listed without a delimiter only."
        ));
    }
    let names = Names::of(input.encoding_type.as_ref());
    let max = page_size(input.max_uploads).ok_or_else(|| s3_error!(InvalidArgument))?;
    let prefix = input.prefix.clone().unwrap_or_default();
    let key_marker = input.key_marker.clone().unwrap_or_default();
    let id_marker = input.upload_id_marker.clone();
    // A key marker without an id stands for all uploads of its key.
    let later = |(key, id): &(String, String)| match &id_marker {
        Some(marker) => (key, id) > (&key_marker, marker),
        None => *key > key_marker,
    };
    let mut wanted = uploads
        .iter()
        .filter(|(place, _)| place.0.starts_with(&prefix) && later(place));
    let page: Vec<_> = wanted.by_ref().take(max).collect();
    let more = wanted.next().is_some();
    let last = page
        .last()
        .filter(|_| more)
        .map(|(place, _)| (*place).clone());
    let (next_key, next_id) = last.unzip();
    let listed = page.iter().map(|((key, id), upload)| MultipartUpload {
        key: Some(names.write(key)),
        upload_id: Some(id.clone()),
        initiated: Some(upload.started.into()),
        storage_class: Some("STANDARD".to_owned().into()),
        ..MultipartUpload::default()
    });
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(names.write(prefix)),
        key_marker: Some(names.write(key_marker)),
        upload_id_marker: input.upload_id_marker,
        next_key_marker: next_key.map(|key| names.write(key)),
        next_upload_id_marker: next_id,
        encoding_type: input.encoding_type,
        max_uploads: i32::try_from(max).ok(),
        is_truncated: Some(more),
        uploads: Some(listed.collect()),
        ..ListMultipartUploadsOutput::default()
    })
}
