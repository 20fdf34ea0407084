//! What a real file system over the store does.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use store::{Fault, Store, mounter};

use crate::client::{LONG, store};
use crate::mount::{S3fs, privately};

const KEY: &str = "ID:secret";
const PATH_STYLE: &str = "-ouse_path_request_style";

fn mounted(store: &Store) -> S3fs {
    S3fs::mounted(&store.url(), "bucket", KEY, &[PATH_STYLE])
}

#[test]
fn files_and_directories() {
    privately(|| {
        let (store, _) = store();
        let s3fs = mounted(&store);
        let path = |name: &str| s3fs.path(name);

        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/file"), "hello").unwrap();
        assert_eq!(fs::read(path("d/file")).unwrap(), b"hello");
        assert_eq!(store.keys("bucket"), ["d/", "d/file"]);
        assert_eq!(store.object("bucket", "d/file"), Some(b"hello".to_vec()));

        fs::rename(path("d/file"), path("d/ü & new")).unwrap();
        fs::set_permissions(path("d/ü & new"), PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(store.keys("bucket"), ["d/", "d/ü & new"]);
        let mode = store.info("bucket", "d/ü & new").unwrap().metadata["mode"].clone();
        assert_eq!(mode, 0o100640.to_string());
        assert_eq!(
            fs::metadata(path("d/ü & new"))
                .unwrap()
                .permissions()
                .mode(),
            0o100640
        );

        symlink("ü & new", path("d/link")).unwrap();
        assert_eq!(fs::read(path("d/link")).unwrap(), b"hello");
        assert_eq!(fs::read_dir(path("d")).unwrap().count(), 2);

        assert!(fs::remove_dir(path("d")).is_err());
        fs::remove_file(path("d/link")).unwrap();
        fs::remove_file(path("d/ü & new")).unwrap();
        fs::remove_dir(path("d")).unwrap();
        assert_eq!(store.keys("bucket"), Vec::<String>::new());
        assert!(s3fs.unmount().success());
    });
}

#[test]
fn a_large_file_goes_and_comes_in_parts() {
    privately(|| {
        let (store, _) = store();
        let s3fs = mounted(&store);
        // No part is like another one.
        let data: Vec<u8> = (0..16u32 << 20).flat_map(u32::to_le_bytes).collect();
        fs::write(s3fs.path("large"), &data).unwrap();
        assert!(store.object("bucket", "large") == Some(data.clone()));
        let info = store.info("bucket", "large").unwrap();
        assert!(info.etag.contains('-'), "{}", info.etag);
        assert_eq!(store.uploads("bucket"), 0);

        fs::rename(s3fs.path("large"), s3fs.path("renamed")).unwrap();
        assert_eq!(store.keys("bucket"), ["renamed"]);
        // Another mount has nothing of it in its cache.
        assert!(s3fs.unmount().success());
        let s3fs = mounted(&store);
        assert!(fs::read(s3fs.path("renamed")).unwrap() == data);
    });
}

#[test]
fn a_large_directory_is_listed_completely() {
    privately(|| {
        let (store, _) = store();
        let names: BTreeSet<String> = (0..3000).map(|number| format!("file-{number}")).collect();
        store.put("bucket", "d/", "");
        for name in &names {
            store.put("bucket", &format!("d/{name}"), name.as_str());
        }
        let s3fs = mounted(&store);
        let found = fs::read_dir(s3fs.path("d")).unwrap();
        let found = found.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(found.collect::<BTreeSet<_>>() == names);
        assert_eq!(
            fs::read_to_string(s3fs.path("d/file-2999")).unwrap(),
            "file-2999"
        );
    });
}

#[test]
fn both_signatures_and_both_addressings() {
    privately(|| {
        let (store, _) = store();
        let local = format!("http://localhost:{}", store.address().port());
        let with = |names: &[&str]| names.iter().map(|name| format!("-o{name}")).collect();
        let old: Vec<String> = with(mounter().old_signature);
        let new: Vec<String> = with(mounter().new_signature);
        for (url, signature, style) in [
            (store.url(), &old, [PATH_STYLE].as_slice()),
            (store.url(), &new, &[PATH_STYLE]),
            (local.clone(), &old, &[]),
            (local, &new, &[]),
        ] {
            let mut options: Vec<&str> = signature.iter().map(String::as_str).collect();
            options.extend(style);
            let options = options.as_slice();
            let s3fs = S3fs::mounted(&url, "bucket", KEY, options);
            fs::write(s3fs.path("a + b"), "hello").unwrap();
            assert_eq!(
                store.object("bucket", "a + b"),
                Some(b"hello".to_vec()),
                "{options:?}"
            );
            fs::remove_file(s3fs.path("a + b")).unwrap();
            assert!(s3fs.unmount().success());
        }
    });
}

#[test]
fn a_mount_goes_on_after_a_fault() {
    privately(|| {
        let (store, _) = store();
        let s3fs = mounted(&store);
        let hang = store.inject("bucket", Fault::Hang.only(&["PUT"]));
        thread::scope(|scope| {
            let written = scope.spawn(|| fs::write(s3fs.path("file"), "hello"));
            assert!(store.wait_for_request(LONG, |request| request.method == "PUT"));
            store.remove_fault(hang);
            written.join().unwrap().unwrap();
        });
        assert_eq!(store.object("bucket", "file"), Some(b"hello".to_vec()));
    });
}

/// Starts a program that finds out that it cannot use the bucket, and checks what it says. The exit
/// status of s3fs says nothing: version 1.90 ends with 0 even then.
fn fails(store: &Store, bucket: &str, key: &str, status: u16, text: &str) {
    let mut s3fs = S3fs::start(&store.url(), bucket, key, &[PATH_STYLE]);
    let ended = s3fs.wait().expect("the end of the program");
    assert_eq!(ended.code(), Some(mounter().refused_status));
    assert!(!s3fs.is_mounted());
    let output = s3fs.output();
    assert!(output.contains(text), "{output}");
    let requests = store.requests();
    let id = key.split(':').next();
    let of_this =
        |request: &&store::Request| Some(request.key_id.as_str()) == id && request.bucket == bucket;
    let statuses: BTreeSet<_> = requests
        .iter()
        .filter(of_this)
        .map(|request| request.status)
        .collect();
    assert_eq!(statuses, [Some(status)].into(), "{output}");
}

#[test]
fn wrong_keys_and_buckets_do_not_mount() {
    privately(|| {
        let (store, _) = store();
        store.create_bucket("other");
        store.restrict("other", &["SOMEONE"]);
        let said = mounter();
        fails(&store, "bucket", "WRONG:secret", 403, said.refused);
        fails(&store, "bucket", "ID:wrong", 403, said.refused);
        fails(&store, "other", KEY, 403, said.refused);
        fails(&store, "absent", KEY, 404, said.no_bucket);
    });
}
