//! The wire format, and a systemd that answers what a test says.

use super::marshal::{Reader, message};
use super::{Body, Connection, MANAGER, Refused, string_of};
use crate::sys::deadline::Deadline;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::time::Duration;

/// The fields that end a message to the caller whose call had the serial 1.
fn answer(kind: u8, name: Option<(u8, &str)>, body: &[u8], signature: &str) -> Vec<u8> {
    let mut fields = Body::default();
    fields.align(8).byte(5).signature("u").number(1);
    if let Some((field, name)) = name {
        fields.align(8).byte(field).signature("s").put_string(name);
    }
    fields.align(8).byte(8).signature("g");
    fields.put_signature(signature);
    let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    let mut message = vec![b'l', kind, 0, 1];
    message.extend(length(body));
    message.extend(9_u32.to_le_bytes());
    message.extend(length(&fields.bytes));
    message.extend(&fields.bytes);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

fn text(text: &str) -> Vec<u8> {
    let mut body = Body::default();
    body.string(text);
    body.bytes
}

/// What `ask` gets from a systemd that answers with `answers`.
fn with<T>(answers: Vec<Vec<u8>>, ask: impl FnOnce(&mut Connection) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 26];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n");
        stream.write_all(b"OK 0123\r\n").unwrap();
        // The call itself: whatever it is.
        stream.read_exact(&mut [0; 16]).unwrap();
        for answer in answers {
            stream.write_all(&answer).unwrap();
        }
    });
    let deadline = Deadline::after(Duration::from_secs(10));
    let mut connection = Connection::open(&path, deadline).unwrap();
    let result = ask(&mut connection);
    drop(connection);
    server.join().unwrap();
    result
}

#[test]
fn a_call_is_written_as_the_specification_says() {
    let mut body = Body::default();
    body.string("a.service").string("replace");
    let message = message(7, MANAGER, "StartUnit", &body);
    assert_eq!(&message[..4], b"l\x01\0\x01");
    assert_eq!(message[4..8], 28_u32.to_le_bytes());
    assert_eq!(message[8..12], 7_u32.to_le_bytes());
    let fields = u32::from_le_bytes(message[12..16].try_into().unwrap()) as usize;
    let mut reader = Reader::new(&message[16..16 + fields]);
    let mut seen = Vec::new();
    while !reader.is_at_end() {
        reader.align(8);
        let field = reader.byte().unwrap();
        let value = match reader.signature().unwrap().as_str() {
            "g" => reader.signature().unwrap(),
            _ => reader.string().unwrap(),
        };
        seen.push((field, value));
    }
    let expected = [
        (1, "/org/freedesktop/systemd1"),
        (2, "org.freedesktop.systemd1.Manager"),
        (3, "StartUnit"),
        (8, "ss"),
    ];
    assert_eq!(
        seen,
        expected.map(|(field, value)| (field, value.to_owned()))
    );
    assert_eq!((message.len() - 28) % 8, 0);
    let end = &message[message.len() - 28..];
    assert_eq!(end, b"\x09\0\0\0a.service\0\0\0\x07\0\0\0replace\0");
}

#[test]
fn arrays_count_their_elements_alone() {
    let mut body = Body::default();
    body.transient_unit("u", &[1, 2], "s");
    assert_eq!(body.signature, "ssa(sv)a(sa(sv))");
    let mut reader = Reader::new(&body.bytes);
    assert_eq!(reader.string().unwrap(), "u");
    assert_eq!(reader.string().unwrap(), "fail");
    let length = reader.number().unwrap() as usize;
    reader.align(8);
    let end = reader.at + length;
    assert_eq!(reader.string().unwrap(), "PIDs");
    assert_eq!(reader.signature().unwrap(), "au");
    assert_eq!(
        [reader.number(), reader.number(), reader.number()].map(Result::unwrap),
        [8, 1, 2]
    );
    reader.align(8);
    assert_eq!(reader.string().unwrap(), "Slice");
    assert_eq!(reader.signature().unwrap(), "s");
    assert_eq!(reader.string().unwrap(), "s");
    assert_eq!(reader.at, end);
    assert_eq!(reader.number().unwrap(), 0);
    reader.align(8);
    assert!(reader.is_at_end());
}

#[test]
fn an_answer_is_found_among_signals_and_a_refusal_is_one() {
    let signal = || answer(4, Some((3, "UnitNew")), &text("other"), "s");
    let unrelated = {
        let mut message = answer(2, None, &text("no"), "s");
        // Of the call 2, which nobody made.
        message[20] = 2;
        message
    };
    let job = answer(2, None, &text("/job/1"), "o");
    let found = with(vec![signal(), unrelated, job], |systemd| {
        systemd.call("StartUnit", &Body::default()).unwrap()
    });
    assert_eq!(string_of(&found).unwrap(), "/job/1");
    let error = answer(3, Some((4, "org.x.NoSuchUnit")), &text("no such unit"), "s");
    let error = with(vec![error], |systemd| {
        systemd.call("StopUnit", &Body::default()).unwrap_err()
    });
    assert_eq!(error.downcast::<Refused>().unwrap().0, "no such unit");
}

#[test]
fn the_end_of_a_job_is_waited_for() {
    let removed = |job: &str, result: &str| {
        let mut body = Body::default();
        body.number(1)
            .put_string(job)
            .put_string("a.service")
            .put_string(result);
        answer(4, Some((3, "JobRemoved")), &body.bytes, "uoss")
    };
    let answers = vec![
        answer(2, None, &text("/job/2"), "o"),
        removed("/job/1", "failed"),
        removed("/job/2", "done"),
    ];
    let result = with(answers, |systemd| {
        let job = systemd.call("StopUnit", &Body::default()).unwrap();
        systemd.wait_for_job(&string_of(&job).unwrap()).unwrap()
    });
    assert_eq!(result, "done");
}

#[test]
fn nonsense_is_an_error() {
    for nonsense in [
        b"l\x02\0\x01\xff\xff\xff\xff\x09\0\0\0\0\0\0\0".to_vec(),
        b"B\x02\0\x01\0\0\0\0\x09\0\0\0\0\0\0\0".to_vec(),
        b"l\x02\0\x01\0\0\0\0\x09\0\0\0\x08\0\0\0\x05\x01u\0\x01\0\0\0".to_vec(),
        b"l\x02\0\x01\0\0\0\0\x09\0\0\0\x08\0\0\0\x05\x01x\0\x01\0\0\0".to_vec(),
        b"l\x02".to_vec(),
    ] {
        let error = with(vec![nonsense.clone()], |systemd| {
            systemd
                .call("StartUnit", &Body::default())
                .and_then(|body| string_of(&body))
                .unwrap_err()
        });
        assert!(!error.is::<Refused>(), "{nonsense:?}");
    }
}
