//! Objects: writing, reading, copying.

use crate::client::{error, store};

#[test]
fn objects_come_back_as_they_were_put() {
    let (store, client) = store();
    let headers = [("content-type", "text/plain"), ("x-amz-meta-mode", "33188")];
    let put = client.send("PUT", "/bucket/d/file%20one", &headers, b"hello");
    assert_eq!(put.status, 200, "{}", put.text());
    let etag = "\"5d41402abc4b2a76b9719d911017c592\"";
    assert_eq!(put.header("etag"), Some(etag));
    assert_eq!(
        store.object("bucket", "d/file one"),
        Some(b"hello".to_vec())
    );

    let (get, head) = (
        client.get("/bucket/d/file%20one"),
        client.head("/bucket/d/file%20one"),
    );
    assert_eq!(
        (get.status, get.body.as_slice()),
        (200, b"hello".as_slice())
    );
    assert_eq!((head.status, head.body.as_slice()), (200, b"".as_slice()));
    for answer in [get, head] {
        assert_eq!(answer.header("etag"), Some(etag));
        assert_eq!(answer.header("content-length"), Some("5"));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("x-amz-meta-mode"), Some("33188"));
        assert!(
            answer
                .header("last-modified")
                .is_some_and(|time| time.ends_with(" GMT"))
        );
    }
    let info = store.info("bucket", "d/file one").unwrap();
    assert_eq!(info.metadata["mode"], "33188");
    assert_eq!(
        (info.size, info.content_type.as_deref()),
        (5, Some("text/plain"))
    );

    assert_eq!(
        client
            .send("DELETE", "/bucket/d/file%20one", &[], b"")
            .status,
        204
    );
    assert_eq!(
        client
            .send("DELETE", "/bucket/d/file%20one", &[], b"")
            .status,
        204
    );
    assert_eq!(store.keys("bucket"), Vec::<String>::new());
}

#[test]
fn directory_objects_are_objects() {
    let (store, client) = store();
    assert_eq!(client.put("/bucket/d/", b"").status, 200);
    assert_eq!(store.keys("bucket"), ["d/"]);
    let head = client.head("/bucket/d/");
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, Some("0"))
    );
    assert_eq!(client.head("/bucket/d").status, 404);
    assert_eq!(client.get("/bucket/d/").body, b"");
}

#[test]
fn ranges_are_cut_out_of_the_object() {
    let (store, client) = store();
    store.put("bucket", "file", "0123456789");
    store.put("bucket", "empty", "");
    for (range, body, header) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-5", "2345", "bytes 2-5/10"),
        ("bytes=8-", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
    ] {
        let answer = client.send("GET", "/bucket/file", &[("range", range)], b"");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (206, body),
            "{range}"
        );
        assert_eq!(answer.header("content-range"), Some(header), "{range}");
    }
    for key in ["file", "empty"] {
        let answer = client.send(
            "GET",
            &format!("/bucket/{key}"),
            &[("range", "bytes=10-")],
            b"",
        );
        assert_eq!(answer.error(), error(416, "InvalidRange"), "{key}");
    }
}

#[test]
fn conditions_on_tags_hold() {
    let (store, client) = store();
    store.put("bucket", "file", "hello");
    let etag = "\"5d41402abc4b2a76b9719d911017c592\"";
    let get = |name, value| {
        client
            .send("GET", "/bucket/file", &[(name, value)], b"")
            .status
    };
    assert_eq!(
        (get("if-match", etag), get("if-match", "\"other\"")),
        (200, 412)
    );
    assert_eq!(
        (
            get("if-none-match", etag),
            get("if-none-match", "\"other\"")
        ),
        (304, 200)
    );
    let put = |key: &str| {
        client.send(
            "PUT",
            &format!("/bucket/{key}"),
            &[("if-none-match", "*")],
            b"x",
        )
    };
    assert_eq!((put("file").status, put("new").status), (412, 200));
    assert_eq!(store.object("bucket", "file"), Some(b"hello".to_vec()));
}

#[test]
fn a_wrong_digest_stores_nothing() {
    let (store, client) = store();
    let put = |digest| client.send("PUT", "/bucket/file", &[("content-md5", digest)], b"hello");
    assert_eq!(
        put("AAAAAAAAAAAAAAAAAAAAAA==").error(),
        error(400, "BadDigest")
    );
    assert_eq!(store.object("bucket", "file"), None);
    assert_eq!(put("XUFAKrxLKna5cZ2REBfFkg==").status, 200);
}

#[test]
fn copies_keep_or_replace_metadata() {
    let (store, client) = store();
    let headers = [("content-type", "text/plain"), ("x-amz-meta-mode", "1")];
    client.send("PUT", "/bucket/a%20b", &headers, b"hello");
    let copy = |to: &str, headers: &[(&str, &str)]| {
        let mut all = vec![("x-amz-copy-source", "/bucket/a%20b")];
        all.extend(headers);
        client.send("PUT", &format!("/bucket/{to}"), &all, b"")
    };
    let answer = copy("kept", &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer
            .one("ETag")
            .contains("5d41402abc4b2a76b9719d911017c592")
    );
    let kept = store.info("bucket", "kept").unwrap();
    assert_eq!((kept.size, kept.metadata["mode"].as_str()), (5, "1"));
    assert_eq!(kept.content_type.as_deref(), Some("text/plain"));

    let replace = [
        ("x-amz-metadata-directive", "REPLACE"),
        ("x-amz-meta-uid", "2"),
    ];
    assert_eq!(copy("a%20b", &replace).status, 200);
    let replaced = store.info("bucket", "a b").unwrap();
    assert_eq!(
        replaced.metadata.into_iter().collect::<Vec<_>>(),
        [("uid".into(), "2".into())]
    );
    assert_eq!(replaced.content_type, None);
    assert_eq!(store.object("bucket", "a b"), Some(b"hello".to_vec()));

    assert_eq!(copy("a%20b", &[]).error(), error(400, "InvalidRequest"));
    let missing = client.send(
        "PUT",
        "/bucket/x",
        &[("x-amz-copy-source", "/bucket/none")],
        b"",
    );
    assert_eq!(missing.error(), error(404, "NoSuchKey"));
}
