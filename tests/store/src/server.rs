//! The listener, its threads, and the way of a request through them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, S3Error, S3ErrorCode};
use tokio::sync::oneshot;

use crate::access::Keys;
use crate::address::{self, Hosts};
use crate::body::Drained;
use crate::faults::{End, Faults, GARBAGE};
use crate::objects::Contents;
use crate::oss::Exchange;
use crate::record::Record;
use crate::s3::Operations;

/// What the handle of a store and its threads share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) contents: Arc<Contents>,
    pub(crate) faults: Faults,
    pub(crate) record: Record,
}

/// The running server; it ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(address: SocketAddr, shared: Arc<Shared>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, shared) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime here, outside of any other one, drops all requests under way
            // and joins its threads.
        };
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(serve)?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already, and a second one here would abort the test.
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    let mut builder = S3ServiceBuilder::new(Operations(Arc::clone(&shared.contents)));
    builder.set_auth(Keys(Arc::clone(&shared.contents)));
    builder.set_access(Keys(Arc::clone(&shared.contents)));
    builder.set_host(Hosts);
    let s3 = builder.build();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: the connection stays in the queue until some close.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Costs only speed where it cannot be set.
        let _ = stream.set_nodelay(true);
        let (shared, s3) = (Arc::clone(&shared), s3.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(&shared, &s3, request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Clients may go away at any time, and closing without an answer is an error too.
            let _ = connection.await;
        });
    }
}

async fn answer(
    shared: &Shared,
    s3: &S3Service,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let seen = address::read(&parts);
    let (bucket, method) = (seen.bucket.clone(), seen.method.clone());
    let oss = Exchange::begin(&parts, &seen);
    let ticket = shared.record.begin(seen);
    let body = Drained::new(body);
    let end = shared.faults.pass(&bucket, &method).await;
    let admitted = match (&end, &oss) {
        (None, Some(oss)) => oss.admit(&mut parts, &shared.contents),
        _ => Ok(()),
    };
    let response = match (end, admitted) {
        (Some(end), _) => in_dialect(oss.as_ref(), end.respond()).await,
        (None, Err(refused)) => Ok(*refused),
        (None, Ok(())) => {
            let body = Body::http_body_unsync(body);
            let request = http::Request::from_parts(parts, body);
            in_dialect(oss.as_ref(), s3.call(request).await).await
        }
    };
    let status = response
        .as_ref()
        .ok()
        .map(|response| response.status().as_u16());
    shared.record.finish(&ticket, status);
    response
}

/// The answer in the client's own protocol.
async fn in_dialect(
    oss: Option<&Exchange>,
    response: Result<Response<Body>, HttpError>,
) -> Result<Response<Body>, HttpError> {
    match (oss, response) {
        (Some(oss), Ok(response)) => oss.answer(response).await,
        (_, response) => response,
    }
}

impl End {
    fn respond(self) -> Result<Response<Body>, HttpError> {
        match self {
            End::Close => Err(HttpError::new("closed on purpose".into())),
            End::Garbage => {
                let mut response = Response::new(Body::from(GARBAGE.to_owned()));
                let html = header::HeaderValue::from_static("text/html");
                response.headers_mut().insert(header::CONTENT_TYPE, html);
                Ok(response)
            }
            End::Status(status) => error(status, None),
            End::Redirect(location) => error(301, Some(location)),
        }
    }
}

/// An error as the protocol has it, with the code that usually goes with the status.
fn error(status: u16, location: Option<String>) -> Result<Response<Body>, HttpError> {
    let internal = |error: S3Error| HttpError::new(Box::new(error));
    let status = StatusCode::from_u16(status).map_err(|error| HttpError::new(Box::new(error)))?;
    let code = match status.as_u16() {
        301 => S3ErrorCode::PermanentRedirect,
        400 => S3ErrorCode::InvalidRequest,
        403 => S3ErrorCode::AccessDenied,
        404 => S3ErrorCode::NoSuchKey,
        405 => S3ErrorCode::MethodNotAllowed,
        412 => S3ErrorCode::PreconditionFailed,
        501 => S3ErrorCode::NotImplemented,
        503 => S3ErrorCode::SlowDown,
        _ => S3ErrorCode::InternalError,
    };
    let mut error = S3Error::with_message(code, "Answered so on purpose.");
    error.set_status_code(status);
    let mut response = error.to_http_response().map_err(internal)?;
    if let Some(location) = location {
        let location = location
            .parse()
            .map_err(|_| internal(S3ErrorCode::InternalError.into()))?;
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
