//! The listing of a bucket as the two versions of the operation answer it.

use std::collections::BTreeMap;

use base64_simd::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    CommonPrefix, ETag, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object as Listed,
};
use s3s::{S3Result, s3_error};

use crate::list::{Page, Query, page, page_size};
use crate::objects::Object;

/// Version 1: pages by marker.
pub(crate) fn first(
    objects: &BTreeMap<String, Object>,
    input: ListObjectsInput,
) -> S3Result<ListObjectsOutput> {
    let names = Names::of(input.encoding_type.as_ref());
    let max = page_size(input.max_keys).ok_or_else(|| s3_error!(InvalidArgument))?;
    let page = page(
        objects,
        &Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().unwrap_or_default(),
            after: input.marker.as_deref().unwrap_or_default(),
            max,
        },
    );
    let (contents, prefixes) = page.entries(names);
    let grouped = input
        .delimiter
        .as_ref()
        .is_some_and(|delimiter| !delimiter.is_empty());
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(names.write(input.prefix.unwrap_or_default())),
        marker: Some(names.write(input.marker.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| names.write(delimiter)),
        encoding_type: input.encoding_type,
        max_keys: i32::try_from(max).ok(),
        is_truncated: Some(page.next.is_some()),
        // Without a delimiter clients continue after the last key.
        next_marker: page.next.filter(|_| grouped).map(|next| names.write(next)),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        ..ListObjectsOutput::default()
    })
}

/// Version 2: pages by continuation token.
pub(crate) fn second(
    objects: &BTreeMap<String, Object>,
    input: ListObjectsV2Input,
) -> S3Result<ListObjectsV2Output> {
    let names = Names::of(input.encoding_type.as_ref());
    let max = page_size(input.max_keys).ok_or_else(|| s3_error!(InvalidArgument))?;
    let after = match &input.continuation_token {
        Some(token) => read_token(token).ok_or_else(|| s3_error!(InvalidArgument))?,
        None => input.start_after.clone().unwrap_or_default(),
    };
    let page = page(
        objects,
        &Query {
            prefix: input.prefix.as_deref().unwrap_or_default(),
            delimiter: input.delimiter.as_deref().unwrap_or_default(),
            after: &after,
            max,
        },
    );
    let (contents, prefixes) = page.entries(names);
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(names.write(input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| names.write(delimiter)),
        start_after: input.start_after.map(|start| names.write(start)),
        encoding_type: input.encoding_type,
        max_keys: i32::try_from(max).ok(),
        key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
        is_truncated: Some(page.next.is_some()),
        continuation_token: input.continuation_token,
        next_continuation_token: page.next.map(|next| token(&next)),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        ..ListObjectsV2Output::default()
    })
}

/// The continuation token for a page after this entry; tokens carry no XML and need no escaping.
fn token(last: &str) -> String {
    URL_SAFE_NO_PAD.encode_to_string(last)
}

fn read_token(token: &str) -> Option<String> {
    let entry = URL_SAFE_NO_PAD.decode_to_vec(token).ok()?;
    String::from_utf8(entry).ok()
}

/// How names are written in an answer: as they are, or escaped when the client asked for it
/// because XML cannot carry all of them.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    escaped: bool,
}

impl Names {
    pub(crate) fn of(encoding: Option<&EncodingType>) -> Self {
        Self {
            escaped: encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL),
        }
    }

    pub(crate) fn write(self, name: impl Into<String>) -> String {
        const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'_')
            .remove(b'.')
            .remove(b'~')
            .remove(b'/');
        let name = name.into();
        if self.escaped {
            utf8_percent_encode(&name, ESCAPED).to_string()
        } else {
            name
        }
    }
}

impl Page<'_> {
    /// The objects and the common prefixes as the answer has them.
    fn entries(&self, names: Names) -> (Vec<Listed>, Vec<CommonPrefix>) {
        let objects = self.objects.iter().map(|(key, object)| Listed {
            key: Some(names.write(*key)),
            size: i64::try_from(object.data.len()).ok(),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(object.modified.into()),
            storage_class: Some("STANDARD".to_owned().into()),
            ..Listed::default()
        });
        let prefixes = self.prefixes.iter().map(|prefix| CommonPrefix {
            prefix: Some(names.write(prefix)),
        });
        (objects.collect(), prefixes.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_names_only_when_asked() {
        let url = EncodingType::from_static(EncodingType::URL);
        assert_eq!(Names::of(Some(&url)).write("a b/ü\n"), "a%20b/%C3%BC%0A");
        assert_eq!(Names::of(None).write("a b/ü"), "a b/ü");
    }
}
