//! The arguments and exit statuses of `oss serve`.

use std::ffi::OsString;
use std::path::PathBuf;

/// The argument of the process that only keeps the descriptor.
pub const PARENT: &str = "--parent";
/// The argument of a process whose parent keeps the descriptor.
pub(crate) const CHILD: &str = "--child";
/// The exit status that says: it makes no sense to start this process again.
pub(crate) const GIVE_UP: u8 = 3;

/// What a process does for its volume.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Keeps the descriptor, and starts a child.
    Parent,
    /// Serves; its parent keeps the descriptor.
    Child,
    /// Serves; systemd keeps the descriptor, or nobody does.
    Only,
}

impl Role {
    /// The role and the volume's directory (an absolute path) in what follows `oss serve`; None if
    /// the arguments make no sense.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Option<(Self, PathBuf)> {
        let args: Vec<OsString> = args.into_iter().collect();
        let (role, volume) = match args.as_slice() {
            [volume] => (Self::Only, volume),
            [option, volume] if option == PARENT => (Self::Parent, volume),
            [option, volume] if option == CHILD => (Self::Child, volume),
            _ => return None,
        };
        let volume = PathBuf::from(volume);
        volume.is_absolute().then_some((role, volume))
    }
}

#[cfg(test)]
mod tests {
    use super::Role;
    use std::path::PathBuf;

    #[test]
    fn takes_one_absolute_directory() {
        let of = |args: &[&str]| Role::parse(args.iter().map(Into::into));
        let volume = PathBuf::from("/v");
        assert_eq!(of(&["/v"]), Some((Role::Only, volume.clone())));
        assert_eq!(
            of(&["--parent", "/v"]),
            Some((Role::Parent, volume.clone()))
        );
        assert_eq!(of(&["--child", "/v"]), Some((Role::Child, volume)));
        for args in [
            &[][..],
            &["v"],
            &["--other", "/v"],
            &["/v", "/w"],
            &["--parent"],
        ] {
            assert_eq!(of(args), None, "{args:?}");
        }
    }
}
