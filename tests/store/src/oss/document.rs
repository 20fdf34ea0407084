//! The XML of answers: the same elements as in S3, in no namespace, with other values of some.

/// The namespace that S3's documents have.
const NAMESPACE: &str = " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

/// A document of S3 as OSS writes it.
pub(super) fn to_oss(document: &str) -> String {
    let document = document.replace(NAMESPACE, "").replace(
        "<StorageClass>STANDARD</StorageClass>",
        "<StorageClass>Standard</StorageClass>",
    );
    let mut parts = document.split("<ETag>");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (tag, rest) = part.split_once("</ETag>").unwrap_or((part, ""));
        let tag = tag.replace("&quot;", "\"").to_ascii_uppercase();
        text += &format!("<ETag>{tag}</ETag>{rest}");
    }
    text
}

/// The text of the first element of this name.
pub(super) fn element<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = document.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// A text as XML has it.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_no_namespace_and_tags_in_capitals() {
        let s3 = "<R xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Key>ab</Key>\
                  <ETag>&quot;ab&quot;</ETag><StorageClass>STANDARD</StorageClass></R>";
        let oss = "<R><Key>ab</Key><ETag>\"AB\"</ETag><StorageClass>Standard</StorageClass></R>";
        assert_eq!(to_oss(s3), oss);
    }
}
