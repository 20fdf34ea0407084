//! Uploads in parts.

use crate::client::{error, store};

#[test]
fn uploads_in_parts_become_one_object() {
    let (store, client) = store();
    store.put("bucket", "source", "0123456789");
    let headers = [("x-amz-meta-mode", "1")];
    let id = client
        .send("POST", "/bucket/big?uploads", &headers, b"")
        .one("UploadId");
    let target = |query: &str| format!("/bucket/big?{query}uploadId={id}");

    let one = client.put(&target("partNumber=1&"), b"hello ");
    let range = [
        ("x-amz-copy-source", "bucket/source"),
        ("x-amz-copy-source-range", "bytes=2-4"),
    ];
    let two = client.send("PUT", &target("partNumber=2&"), &range, b"");
    let (one, two) = (one.header("etag").unwrap().to_owned(), two.one("ETag"));
    assert_eq!(client.get("/bucket?uploads").one("Key"), "big");
    let parts = client.get(&target(""));
    assert_eq!(
        (parts.all("PartNumber"), parts.all("Size")),
        (vec!["1".into(), "2".into()], vec!["6".into(), "3".into()])
    );
    assert_eq!(store.object("bucket", "big"), None);

    let complete = |parts: &[(u8, &str)]| {
        let part = |(number, etag): &(u8, &str)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
        };
        let parts: String = parts.iter().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        client.send("POST", &target(""), &[], body.as_bytes())
    };
    assert_eq!(
        complete(&[(2, &two), (1, &one)]).error(),
        error(400, "InvalidPartOrder")
    );
    assert_eq!(complete(&[(1, &two)]).error(), error(400, "InvalidPart"));
    assert_eq!(complete(&[(3, &two)]).error(), error(400, "InvalidPart"));
    let answer = complete(&[(1, &one), (2, &two)]);
    assert_eq!(answer.status, 200, "{}", answer.text());

    assert_eq!(store.object("bucket", "big"), Some(b"hello 234".to_vec()));
    let info = store.info("bucket", "big").unwrap();
    assert!(info.etag.ends_with("-2"), "{}", info.etag);
    assert_eq!(
        (info.metadata["mode"].as_str(), store.uploads("bucket")),
        ("1", 0)
    );
    let across = client.send("GET", "/bucket/big", &[("range", "bytes=4-6")], b"");
    assert_eq!(across.text(), "o 2");
    assert_eq!(complete(&[(1, &one)]).error(), error(404, "NoSuchUpload"));
}

#[test]
fn aborted_uploads_leave_nothing() {
    let (store, client) = store();
    let id = client
        .send("POST", "/bucket/big?uploads", &[], b"")
        .one("UploadId");
    let target = format!("/bucket/big?uploadId={id}");
    assert_eq!(
        (
            client.send("DELETE", &target, &[], b"").status,
            store.uploads("bucket")
        ),
        (204, 0)
    );
    let part = client.put(&format!("/bucket/big?partNumber=1&uploadId={id}"), b"late");
    assert_eq!(part.error(), error(404, "NoSuchUpload"));
}
