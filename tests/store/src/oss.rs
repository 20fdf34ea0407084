//! The dialect of OSS in front of the S3 operations.
//!
//! OSS and S3 have the same operations on buckets, objects and uploads, and the same XML for them.
//! They differ in signatures, in the names of headers and in the documents of errors. So a request
//! of an OSS client is authenticated here, gets S3's names for its headers, passes to the
//! operations as [`Verified`], and its answer gets the names of OSS again.
//!
//! Not spoken: signatures in the query, `x-oss-hash-crc64ecma`, and every `x-oss-` header that
//! [`headers`] does not list; a request with one of those gets `NotImplemented`.

mod document;
mod headers;
mod refusal;
mod signature;
mod v1;
mod v4;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use s3s::{Body, HttpError};

use crate::objects::Contents;
use crate::record::Request;
use refusal::Refusal;

/// The id of the key that signed a request, in the extensions of a request whose signature has
/// been verified already.
#[derive(Clone)]
pub(crate) struct Verified(pub(crate) String);

/// A request of a client that speaks OSS, as far as its answer depends on it.
pub(crate) struct Exchange {
    id: String,
    host: String,
    method: Method,
    seen: Request,
}

impl Exchange {
    /// The exchange that a request begins, if its client speaks OSS: it signs as OSS has it, or
    /// does not sign and has a header or a parameter of OSS.
    pub(crate) fn begin(parts: &Parts, seen: &Request) -> Option<Self> {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let spoken = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => signature::is_of_oss(value),
            None => {
                parts.headers.keys().any(headers::is_of_oss)
                    || signature::is_in_query(seen.query.as_str())
            }
        };
        spoken.then(|| Self {
            id: format!("{:024X}", REQUESTS.fetch_add(1, Ordering::Relaxed)),
            host: headers::text(&parts.headers, header::HOST.as_str()),
            method: parts.method.clone(),
            seen: seen.clone(),
        })
    }

    /// Verifies the signature and turns the request into one for the S3 operations.
    ///
    /// # Errors
    /// The answer, when the request is refused.
    pub(crate) fn admit(
        &self,
        parts: &mut Parts,
        contents: &Contents,
    ) -> Result<(), Box<Response<Body>>> {
        self.verify(parts, contents)
            .map_err(|refusal| Box::new(self.refuse(&refusal)))
    }

    fn verify(&self, parts: &mut Parts, contents: &Contents) -> Result<(), Refusal> {
        let signature = signature::Signature::parse(&parts.headers)?;
        let secret = contents.lock().secrets.get(&signature.key_id).cloned();
        let secret = secret.ok_or_else(|| Refusal::unknown_key(&signature.key_id))?;
        signature.verify(
            &secret,
            &parts.method,
            &self.seen,
            &parts.headers,
            SystemTime::now(),
        )?;
        headers::to_s3(&mut parts.headers)?;
        parts.extensions.insert(Verified(signature.key_id));
        Ok(())
    }

    /// The answer of the S3 operations, or of a fault, as OSS gives it.
    pub(crate) async fn answer(
        &self,
        response: Response<Body>,
    ) -> Result<Response<Body>, HttpError> {
        if !self.has_document(&response) {
            let (mut parts, body) = response.into_parts();
            self.finish(&mut parts.headers);
            return Ok(Response::from_parts(parts, body));
        }
        let (mut parts, body) = response.into_parts();
        let body = body.collect().await.map_err(HttpError::new)?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        if let Some(refusal) = Refusal::of_s3(parts.status, &text) {
            let mut refused = self.refuse(&refusal);
            if let Some(location) = parts.headers.remove(header::LOCATION) {
                refused.headers_mut().insert(header::LOCATION, location);
            }
            return Ok(refused);
        }
        let text = document::to_oss(&text);
        parts.headers.remove(header::CONTENT_LENGTH);
        self.finish(&mut parts.headers);
        Ok(Response::from_parts(parts, Body::from(text)))
    }

    /// Whether the answer is a document of the protocol, not the contents of an object, which may
    /// be XML too.
    fn has_document(&self, response: &Response<Body>) -> bool {
        let xml = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/xml"));
        let failed = !response.status().is_success();
        let of_object = !self.seen.key.is_empty()
            && matches!(self.method, Method::GET | Method::HEAD)
            && !self.seen.query.contains("uploadId=");
        xml && (failed || !of_object)
    }

    fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        let document = refusal.document(&self.id, &self.host, &self.seen);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = refusal.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/xml"),
        );
        if let Some(ec) = refusal.ec {
            headers.insert("x-oss-ec", HeaderValue::from_static(ec));
        }
        if self.method == Method::HEAD {
            // The only way to tell the code where there is no body.
            let encoded = base64_simd::STANDARD.encode_to_string(document.as_bytes());
            if let Ok(encoded) = HeaderValue::from_str(&encoded) {
                headers.insert("x-oss-err", encoded);
            }
        }
        self.finish(headers);
        if refusal.status != StatusCode::NOT_MODIFIED {
            *response.body_mut() = Body::from(document);
        }
        response
    }

    fn finish(&self, headers: &mut HeaderMap) {
        headers::to_oss(headers);
        headers.insert(header::SERVER, HeaderValue::from_static("AliyunOSS"));
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert("x-oss-request-id", id);
        }
    }
}
