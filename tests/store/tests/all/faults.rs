//! Every fault, as a client sees it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use store::{Fault, GARBAGE, Store, refusing_server, silent_server};

use crate::client::{LONG, store};

#[test]
fn a_delay_holds_the_answer_back() {
    let (store, client) = store();
    let delay = Duration::from_millis(200);
    store.inject("bucket", Fault::Delay(delay));
    let start = Instant::now();
    assert_eq!(client.get("/bucket").status, 200);
    assert!(start.elapsed() >= delay);
    // Other buckets are not delayed; this one would be past the limit of the client.
    store.inject("bucket", Fault::Delay(2 * LONG));
    assert_eq!(client.get("/absent").status, 404);
}

#[test]
fn a_hanging_request_goes_on_when_the_fault_is_removed() {
    let (store, client) = store();
    let hang = store.inject_everywhere(Fault::Hang);
    thread::scope(|scope| {
        let answer = scope.spawn(|| client.put("/bucket/file", b"hello"));
        assert!(store.wait_for_request(LONG, |request| request.method == "PUT"));
        assert_eq!(store.requests()[0].status, None);
        assert_eq!(store.object("bucket", "file"), None);
        store.remove_fault(hang);
        assert_eq!(answer.join().unwrap().status, 200);
    });
    assert_eq!(store.object("bucket", "file"), Some(b"hello".to_vec()));
    assert_eq!(store.requests()[0].status, Some(200));
}

#[test]
fn the_end_of_the_store_cuts_hanging_requests_off() {
    let (store, client) = store();
    store.inject("bucket", Fault::Hang);
    let address = store.address();
    thread::scope(|scope| {
        let answer = scope.spawn(|| client.try_send("GET", "/bucket", &[], b""));
        assert!(store.wait_for_request(LONG, |request| request.bucket == "bucket"));
        drop(store);
        answer.join().unwrap().unwrap_err();
    });
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let again = Store::start_on(address).unwrap();
    assert_eq!(again.address(), address);
}

#[test]
fn a_status_comes_with_its_error() {
    let (store, client) = store();
    for (status, code) in [
        (403, "AccessDenied"),
        (503, "SlowDown"),
        (500, "InternalError"),
    ] {
        let fault = store.inject("bucket", Fault::Status(status));
        assert_eq!(
            client.get("/bucket/file").error(),
            (status, code.to_owned())
        );
        assert_eq!(client.head("/bucket/file").status, status);
        assert_eq!(client.put("/bucket/file", &vec![0; 4 << 20]).status, status);
        store.remove_fault(fault);
    }
    assert_eq!(client.get("/bucket").status, 200);
}

#[test]
fn a_redirect_names_its_location() {
    let (store, client) = store();
    store.inject(
        "bucket",
        Fault::Redirect("http://elsewhere.test/".to_owned()),
    );
    let answer = client.get("/bucket");
    assert_eq!(answer.error(), (301, "PermanentRedirect".to_owned()));
    assert_eq!(answer.header("location"), Some("http://elsewhere.test/"));
}

#[test]
fn garbage_is_the_same_for_everything() {
    let (store, client) = store();
    store.inject_everywhere(Fault::Garbage);
    let length = GARBAGE.len().to_string();
    for method in ["GET", "PUT", "HEAD", "DELETE"] {
        let answer = client.send(method, "/bucket/file", &[], b"");
        assert_eq!(answer.status, 200, "{method}");
        assert_eq!(
            answer.header("content-length"),
            Some(length.as_str()),
            "{method}"
        );
        let body = if method == "HEAD" { "" } else { GARBAGE };
        assert_eq!(answer.text(), body, "{method}");
    }
    store.clear_faults();
    assert_eq!(client.head("/bucket/file").status, 404);
}

#[test]
fn faults_begin_and_end_with_the_number_of_requests() {
    let (store, client) = store();
    store.inject("bucket", Fault::Close.only(&["PUT"]).after(1).times(1));
    assert_eq!(client.put("/bucket/1", b"x").status, 200);
    client.try_send("PUT", "/bucket/2", &[], b"x").unwrap_err();
    assert_eq!(client.get("/bucket/2").status, 404);
    assert_eq!(client.put("/bucket/3", b"x").status, 200);
    assert_eq!(store.keys("bucket"), ["1", "3"]);
    let status: Vec<_> = store
        .requests()
        .iter()
        .map(|request| request.status)
        .collect();
    assert_eq!(status, [Some(200), None, Some(404), Some(200)]);
}

#[test]
fn a_silent_server_accepts_and_says_nothing() {
    let silent = silent_server().unwrap();
    let mut stream = TcpStream::connect(silent.address()).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: silent\r\n\r\n")
        .unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_refusing_server_refuses() {
    let refusing = refusing_server().unwrap();
    let error = TcpStream::connect(refusing.address()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(refusing.url(), format!("http://{}", refusing.address()));
}
