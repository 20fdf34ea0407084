//! argv to `Call`: kubelet's calls, an administrator's commands, or the name of any other call.

use std::ffi::OsString;
use zeroize::Zeroizing;

/// What one run of the driver has to do.
pub enum Call {
    Init,
    Mount {
        target: OsString,
        options: Zeroizing<String>,
    },
    Unmount {
        target: OsString,
    },
    /// mount or unmount with the wrong arguments; the text tells what is expected.
    Malformed {
        call: &'static str,
        problem: &'static str,
    },
    /// Any other name; kubelet has fallbacks for the calls it knows.
    Unsupported(String),
    /// A command that an administrator types or a unit runs; see `cli`.
    Cli(Vec<OsString>),
    /// The process of a volume, with what follows `serve`; see `calls::serve`.
    Serve(Vec<OsString>),
}

impl Call {
    /// The call of the arguments after the program's name.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Self {
        let args: Vec<OsString> = args.into_iter().collect();
        let name = args.first().and_then(|name| name.to_str());
        match name {
            Some("init") => Self::Init,
            Some("mount") => Self::mount(args),
            Some("unmount") => Self::unmount(args),
            Some("serve") => Self::Serve(args.into_iter().skip(1).collect()),
            Some("adopt" | "heal" | "--help" | "-h" | "--version" | "-V") => Self::Cli(args),
            _ => Self::Unsupported(
                args.first()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            ),
        }
    }

    fn mount(args: Vec<OsString>) -> Self {
        let malformed = |problem| Self::Malformed {
            call: "mount",
            problem,
        };
        let Ok([_, target, options]) = <[OsString; 3]>::try_from(args) else {
            return malformed("expected two arguments, TARGET and the options as JSON");
        };
        match options.into_string() {
            Ok(options) => Self::Mount {
                target,
                options: Zeroizing::new(options),
            },
            Err(_) => malformed("the options JSON is not UTF-8"),
        }
    }

    fn unmount(args: Vec<OsString>) -> Self {
        match <[OsString; 2]>::try_from(args) {
            Ok([_, target]) => Self::Unmount { target },
            Err(_) => Self::Malformed {
                call: "unmount",
                problem: "expected one argument, TARGET",
            },
        }
    }
}
