//! The program that mounts buckets in tests: s3fs, or the ossfs that the environment variable
//! `OSSFS` names. All that differs between the two is in this table.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The option for a host that has no name for each bucket; both programs have it.
pub const PATH_STYLE: &str = "use_path_request_style";

/// A program that mounts buckets. The texts are parts of messages: of the program's own, or of the
/// driver's about it.
pub struct Mounter {
    /// What is started: a name in `PATH`, or an absolute path.
    pub program: PathBuf,
    /// The name of the process, and of the file system after `fuse.`.
    pub name: &'static str,
    /// The options for version 1 (of OSS) or 2 (of S3) of the signature.
    pub old_signature: &'static [&'static str],
    /// The options for version 4 of the signature.
    pub new_signature: &'static [&'static str],
    /// What turns options for ossfs into options for the program: lines of a shell script about
    /// the option `$a`.
    options: &'static str,
    /// The status with which it ends in the foreground when the store refuses.
    pub refused_status: i32,
    /// How the driver says that the program ended because the store refused. s3fs has mounted by
    /// then; ossfs asks the store before it mounts.
    pub ended: &'static str,
    /// The store refuses the key.
    pub refused: &'static str,
    /// The store has no such bucket.
    pub no_bucket: &'static str,
}

const S3FS: Mounter = Mounter {
    program: PathBuf::new(),
    name: "s3fs",
    old_signature: &["sigv2"],
    new_signature: &[],
    options: "case $a in\n\
                url=http*) ;;\n\
                url=*) a=url=http://${a#url=} ;;\n\
                region=*) a=endpoint=${a#region=} ;;\n\
                sigv1) a=sigv2 ;;\n\
              esac\n",
    refused_status: 0,
    ended: "ossfs exited",
    refused: "invalid credentials",
    no_bucket: "bucket or key not found",
};

const OSSFS: Mounter = Mounter {
    program: PathBuf::new(),
    name: "ossfs",
    old_signature: &["sigv1"],
    new_signature: &["sigv4", "region=cn-hangzhou"],
    options: "",
    refused_status: 1,
    ended: "ossfs exited with status 1",
    refused: "Invalid Credentials",
    no_bucket: "Bucket not found",
};

/// The program that this run of the tests uses.
///
/// # Panics
/// When `OSSFS` is set and names no file by its absolute path.
pub fn mounter() -> &'static Mounter {
    static MOUNTER: OnceLock<Mounter> = OnceLock::new();
    MOUNTER.get_or_init(
        || match std::env::var_os("OSSFS").filter(|name| !name.is_empty()) {
            None => Mounter {
                program: PathBuf::from("s3fs"),
                ..S3FS
            },
            Some(name) => {
                let program = PathBuf::from(name);
                assert!(
                    program.starts_with("/usr") && program.is_file(),
                    "OSSFS={program:?} is not a file below /usr, all that a script in a sandbox can run"
                );
                Mounter { program, ..OSSFS }
            }
        },
    )
}

impl Mounter {
    /// Whether it needs no script that translates its options.
    pub fn takes_options_of_ossfs(&self) -> bool {
        self.options.is_empty()
    }

    /// A shell script, without its first line, that takes the arguments of ossfs and becomes the
    /// program on a store at an address: such a host has no name for each bucket.
    pub fn script(&self) -> String {
        format!(
            "n=$#\n\
             while [ $n -gt 0 ]; do\n\
             a=$1; shift; n=$((n - 1))\n\
             {}\
             set -- \"$@\" \"$a\"\n\
             done\n\
             exec \"{}\" \"$@\" -o {PATH_STYLE}\n",
            self.options,
            self.program.display()
        )
    }
}
