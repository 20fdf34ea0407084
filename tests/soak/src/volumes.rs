//! The volumes that Pods use: what their options say, and which key pair they have.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use support::Store;

/// What every secret of a run begins with, so that one search finds them all.
pub(crate) const SECRET_MARK: &str = "sEcrEt+/";

/// One volume, as a manifest describes it.
pub(crate) struct Volume {
    /// Its directory in the bucket, with a slash at the end; the bucket itself has none.
    pub(crate) prefix: &'static str,
    pub(crate) read_only: bool,
    /// Whether Pods share its daemon.
    pub(crate) shared: bool,
    secret_ref: bool,
    fs_group: bool,
}

const fn volume(prefix: &'static str) -> Volume {
    Volume {
        prefix,
        read_only: false,
        shared: true,
        secret_ref: false,
        fs_group: false,
    }
}

/// Every volume; Pod n uses number n modulo their count.
pub(crate) const VOLUMES: [Volume; 8] = [
    volume("one/"),
    volume("two/"),
    Volume {
        read_only: true,
        ..volume("two/")
    },
    Volume {
        shared: false,
        ..volume("three/")
    },
    Volume {
        secret_ref: true,
        ..volume("deep/er/four/")
    },
    Volume {
        fs_group: true,
        ..volume("five/")
    },
    volume(""),
    Volume {
        read_only: true,
        secret_ref: true,
        ..volume("one/")
    },
];

/// The key pairs of a run, and which of them each volume's Secret has now.
pub(crate) struct Keys {
    pairs: Mutex<Vec<(String, String)>>,
    current: Mutex<[usize; VOLUMES.len()]>,
}

impl Keys {
    /// All volumes with one pair, which the store knows.
    pub(crate) fn new(id: &str, secret: &str) -> Self {
        Self {
            pairs: Mutex::new(vec![(id.to_owned(), secret.to_owned())]),
            current: Mutex::new([0; VOLUMES.len()]),
        }
    }

    /// Gives the volume another pair, and returns its secret.
    pub(crate) fn rotate(&self, volume: usize, store: &Store) -> String {
        let mut pairs = self.pairs.lock().expect("the pairs");
        let number = pairs.len();
        let pair = (
            format!("LTAISoak{number}"),
            format!("{SECRET_MARK}soak{number}"),
        );
        store.add_key(&pair.0, &pair.1);
        pairs.push(pair.clone());
        self.current.lock().expect("the current pairs")[volume] = number;
        pair.1
    }

    pub(crate) fn current(&self, volume: usize) -> usize {
        self.current.lock().expect("the current pairs")[volume]
    }

    pub(crate) fn pair(&self, number: usize) -> (String, String) {
        self.pairs.lock().expect("the pairs")[number].clone()
    }

    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.pairs.lock().expect("the pairs").clone()
    }
}

/// The JSON that kubelet hands over for the volume with this pair, over the `usual` options.
pub(crate) fn options(volume: usize, (id, secret): (String, String), usual: &Value) -> Value {
    let volume = &VOLUMES[volume];
    let mut options = usual.clone();
    options["kubernetes.io/readwrite"] = json!(if volume.read_only { "ro" } else { "rw" });
    if !volume.prefix.is_empty() {
        options["path"] = json!(format!("/{}", volume.prefix.trim_end_matches('/')));
    }
    if !volume.shared {
        options["shareMount"] = json!("false");
    }
    if volume.fs_group {
        options["kubernetes.io/mounterArgs.FsGroup"] = json!("2000");
    }
    if volume.secret_ref {
        options["kubernetes.io/secret/akId"] = json!(BASE64_STANDARD.encode(id));
        options["kubernetes.io/secret/akSecret"] = json!(BASE64_STANDARD.encode(secret));
        for key in ["akId", "akSecret"] {
            options.as_object_mut().map(|options| options.remove(key));
        }
    } else {
        options["akId"] = json!(id);
        options["akSecret"] = json!(secret);
    }
    options
}

/// Where the files are that the run itself needs.
pub(crate) struct Paths {
    /// What all the others are below.
    pub(crate) root: PathBuf,
    /// kubelet's directory of Pods.
    pub(crate) pods: PathBuf,
    pub(crate) containers: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) driver: PathBuf,
}

impl Paths {
    pub(crate) fn target(&self, uid: &str) -> PathBuf {
        self.pods.join(uid).join("volumes/alicloud~oss/data")
    }

    /// The UID of the Pod that `target` is of.
    pub(crate) fn uid(&self, target: &Path) -> String {
        let below = target.strip_prefix(&self.pods).ok();
        let first = below.and_then(|path| path.iter().next());
        first.map_or(String::new(), |uid| uid.to_string_lossy().into_owned())
    }
}
