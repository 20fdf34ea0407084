//! Buckets: listings, access, addressing and the record.

use crate::client::{Client, error, store};

#[test]
fn listings_of_both_versions_page_and_group() {
    let (store, client) = store();
    for key in ["a", "d/", "d/1", "d/e/2", "x&y"] {
        store.put("bucket", key, "data");
    }
    let all = client.get("/bucket?prefix=");
    assert_eq!(all.all("Key"), ["a", "d/", "d/1", "d/e/2", "x&amp;y"]);
    assert_eq!(
        (all.one("IsTruncated"), all.one("MaxKeys")),
        ("false".into(), "1000".into())
    );
    assert_eq!(all.all("Size"), ["4"; 5]);
    assert!(all.all("LastModified")[0].ends_with('Z'));

    let first = client.get("/bucket?delimiter=/&max-keys=2");
    assert_eq!(
        (first.all("Key"), first.one("CommonPrefixes")),
        (vec!["a".into()], "<Prefix>d/</Prefix>".into())
    );
    assert_eq!(
        (first.one("IsTruncated"), first.one("NextMarker")),
        ("true".into(), "d/".into())
    );
    let second = client.get("/bucket?delimiter=/&max-keys=2&marker=d/");
    assert_eq!(
        (second.one("Key"), second.one("IsTruncated")),
        ("x&amp;y".into(), "false".into())
    );

    let first = client.get("/bucket?list-type=2&prefix=d/&delimiter=/&max-keys=1");
    assert_eq!(
        (first.one("Key"), first.one("KeyCount")),
        ("d/".into(), "1".into())
    );
    let token = first.one("NextContinuationToken");
    let second = client.get(&format!(
        "/bucket?list-type=2&prefix=d/&delimiter=/&continuation-token={token}"
    ));
    assert_eq!(
        (second.one("Key"), second.one("IsTruncated")),
        ("d/1".into(), "false".into())
    );
    assert!(
        second.text().contains("<Prefix>d/e/</Prefix>"),
        "{}",
        second.text()
    );
    let after = client.get("/bucket?list-type=2&start-after=d/1&encoding-type=url");
    assert_eq!(after.all("Key"), ["d/e/2", "x%26y"]);
    assert_eq!(
        client.get("/bucket?max-keys=-1").error(),
        error(400, "InvalidArgument")
    );
}

#[test]
fn many_objects_are_deleted_at_once() {
    let (store, client) = store();
    for key in ["a", "b", "c"] {
        store.put("bucket", key, "");
    }
    let body = "<Delete><Object><Key>a</Key></Object><Object><Key>c</Key></Object></Delete>";
    let answer = client.send("POST", "/bucket?delete", &[], body.as_bytes());
    assert_eq!(
        (answer.status, answer.all("Key")),
        (200, vec!["a".into(), "c".into()])
    );
    assert_eq!(store.keys("bucket"), ["b"]);
}

#[test]
fn errors_have_their_codes() {
    let (store, client) = store();
    store.create_bucket("other");
    store.restrict("other", &["SOMEONE"]);
    store.put("other", "file", "");
    assert_eq!(client.get("/bucket/none").error(), error(404, "NoSuchKey"));
    assert_eq!(client.get("/absent").error(), error(404, "NoSuchBucket"));
    assert_eq!(
        client.put("/absent/file", b"x").error(),
        error(404, "NoSuchBucket")
    );
    assert_eq!(client.get("/other").error(), error(403, "AccessDenied"));
    let copy = client.send(
        "PUT",
        "/bucket/file",
        &[("x-amz-copy-source", "other/file")],
        b"",
    );
    assert_eq!(copy.error(), error(403, "AccessDenied"));
    let heads = ["/bucket", "/bucket/none", "/absent", "/other/file"]
        .map(|target| client.head(target).status);
    assert_eq!(heads, [200, 404, 404, 403]);

    let stranger = Client::new(&store, "STRANGER", "secret");
    assert_eq!(
        stranger.get("/bucket").error(),
        error(403, "InvalidAccessKeyId")
    );
    let wrong = Client::new(&store, "ID", "wrong");
    assert_eq!(
        wrong.get("/bucket").error(),
        error(403, "SignatureDoesNotMatch")
    );
    let large = vec![0; 4 << 20];
    assert_eq!(
        wrong.put("/bucket/file", &large).error(),
        error(403, "SignatureDoesNotMatch")
    );
    store.remove_key("ID");
    assert_eq!(
        client.get("/bucket").error(),
        error(403, "InvalidAccessKeyId")
    );
    store.add_key("ID", "secret");
    store.unrestrict("other");
    assert_eq!(client.get("/other").status, 200);
    store.remove_bucket("other");
    assert_eq!(client.get("/other").error(), error(404, "NoSuchBucket"));
    assert_eq!(store.keys("bucket"), Vec::<String>::new());
}

#[test]
fn buckets_are_found_in_the_host_too() {
    let (store, client) = store();
    let client = client.with_host("bucket");
    assert_eq!(client.put("/d/file", b"hello").status, 200);
    assert_eq!(store.keys("bucket"), ["d/file"]);
    assert_eq!(client.get("/?prefix=d/").one("Key"), "d/file");
    assert_eq!(client.get("/?location").status, 200);
    let requests = store.requests();
    let seen = requests
        .iter()
        .map(|request| (request.bucket.as_str(), request.key.as_str()));
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [("bucket", "d/file"), ("bucket", ""), ("bucket", "")]
    );
}

#[test]
fn requests_are_recorded_with_their_status() {
    let (store, client) = store();
    client.put("/bucket/a%0Ab", b"hello");
    client.get("/absent/file?x=1");
    let lines: Vec<String> = store.requests().iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["PUT /bucket/a\\nb ID 200", "GET /absent/file?x=1 ID 404"]
    );
    store.clear_requests();
    assert_eq!(store.requests(), []);
}
