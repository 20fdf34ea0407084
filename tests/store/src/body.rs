//! Bodies on their way in.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64_simd::STANDARD;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::crypto::{Checksum, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

/// What is reserved for a body at once; a longer one grows, so that a client which only announces
/// a body of terabytes gets no memory for it.
const RESERVED: usize = 1 << 30;

/// Takes in a body as one piece, with its digest, which must be the one the client sent, if any.
pub(crate) async fn receive(
    body: Option<StreamingBlob>,
    length: Option<i64>,
    content_md5: Option<&str>,
) -> S3Result<(Bytes, [u8; 16])> {
    let announced = length.and_then(|length| usize::try_from(length).ok());
    let mut data = Vec::with_capacity(announced.unwrap_or_default().min(RESERVED));
    let mut md5 = Md5::new();
    if let Some(body) = body {
        let mut body = s3s::Body::from(body);
        while let Some(frame) = body.frame().await {
            // The front end verifies the digest in the signature while the body passes and says so
            // only by its text.
            let frame = frame.map_err(|error| {
                if error.to_string().contains("Sha256Mismatch") {
                    sha256_mismatch()
                } else {
                    s3_error!(IncompleteBody)
                }
            })?;
            if let Ok(piece) = frame.into_data() {
                md5.update(&piece);
                data.extend_from_slice(&piece);
            }
        }
    }
    let md5 = md5.finalize();
    if content_md5.is_some_and(|sent| sent != STANDARD.encode_to_string(md5)) {
        return Err(s3_error!(
            BadDigest,
            "The Content-MD5 is not the digest of the body received."
        ));
    }
    Ok((data.into(), md5))
}

/// An error the front end has no code of its own for.
fn sha256_mismatch() -> S3Error {
    let code = S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into());
    let mut error = S3Error::with_message(
        code,
        "The x-amz-content-sha256 is not the digest of the body received.",
    );
    error.set_status_code(http::StatusCode::BAD_REQUEST);
    error
}

/// A request's body that is read to its end even when the answer does not wait for it. Closing a
/// connection with unread data resets it, and the client could lose the error it was sent.
pub(crate) struct Drained(Option<Incoming>);

impl Drained {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        // At the store's end there is nothing left that could read, and nothing to answer.
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(mut body), Ok(runtime)) = (self.0.take(), runtime)
            && !body.is_end_stream()
        {
            runtime.spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
        }
    }
}
