//! The requests that are passed on: what each names, what answers it, and whether it may be
//! asked a second time.

use crate::serve::relay::wire;

/// A request that the relay passes on or makes itself (`enum fuse_opcode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Opcode {
    Lookup = 1,
    Getattr = 3,
    Setattr = 4,
    Readlink = 5,
    Symlink = 6,
    Mknod = 8,
    Mkdir = 9,
    Unlink = 10,
    Rmdir = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    Statfs = 17,
    Release = 18,
    Fsync = 20,
    Setxattr = 21,
    Getxattr = 22,
    Listxattr = 23,
    Removexattr = 24,
    Flush = 25,
    Init = 26,
    Opendir = 27,
    Readdir = 28,
    Releasedir = 29,
    Fsyncdir = 30,
    Access = 34,
    Create = 35,
    Fallocate = 43,
    Lseek = 46,
}

/// Requests that the relay answers or takes itself, and never passes on.
pub(super) const FORGET: u32 = 2;
pub(super) const INTERRUPT: u32 = 36;
pub(super) const DESTROY: u32 = 38;
pub(super) const NOTIFY_REPLY: u32 = 41;
pub(super) const BATCH_FORGET: u32 = 42;

/// What a successful answer holds after its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Nothing,
    /// Exactly so many bytes.
    Exact(usize),
    /// `struct fuse_entry_out`, for LOOKUP perhaps with node 0: no such name.
    Entry,
    /// `struct fuse_entry_out` and `struct fuse_open_out`.
    Create,
    /// At most the bytes that the request asked for.
    Data,
    /// At most the bytes that the request asked for, or their number where it asked for none.
    DataOrSize,
    /// A path, without a NUL.
    Path,
}

use Opcode::*;

impl Opcode {
    /// The request of that number, none for those that are not passed on.
    pub(super) fn of(number: u32) -> Option<Self> {
        const ALL: [Opcode; 31] = [
            Lookup,
            Getattr,
            Setattr,
            Readlink,
            Symlink,
            Mknod,
            Mkdir,
            Unlink,
            Rmdir,
            Rename,
            Link,
            Open,
            Read,
            Write,
            Statfs,
            Release,
            Fsync,
            Setxattr,
            Getxattr,
            Listxattr,
            Removexattr,
            Flush,
            Init,
            Opendir,
            Readdir,
            Releasedir,
            Fsyncdir,
            Access,
            Create,
            Fallocate,
            Lseek,
        ];
        ALL.into_iter().find(|opcode| *opcode as u32 == number)
    }

    /// The bytes after the header that a request has at least (protocol 7.12 and later).
    pub(super) fn least(self) -> usize {
        match self {
            Statfs | Readlink => 0,
            Lookup | Unlink | Rmdir | Removexattr => 2,
            Symlink => 4,
            Open | Opendir | Access => 8,
            Link | Mkdir | Setxattr | Listxattr => 8,
            Getxattr => 10,
            Rename => 12,
            Getattr | Fsync | Fsyncdir | Init => 16,
            Mknod | Create => 18,
            Release | Releasedir | Flush | Lseek => 24,
            Fallocate => 32,
            Read | Readdir | Write => 40,
            Setattr => 88,
        }
    }

    /// Where a request has its file handle, after the header; GETATTR and SETATTR only with a flag.
    pub(super) fn handle(self) -> Option<usize> {
        match self {
            Read | Readdir | Write | Release | Releasedir | Flush | Fsync | Fsyncdir
            | Fallocate | Lseek => Some(0),
            Getattr | Setattr => Some(8),
            _ => None,
        }
    }

    /// Where the name begins that the request looks up, makes or removes, after the header.
    pub(super) fn name(self) -> Option<usize> {
        match self {
            Lookup | Unlink | Rmdir | Symlink => Some(0),
            Mkdir | Link | Rename => Some(8),
            Mknod | Create => Some(16),
            _ => None,
        }
    }

    /// Whether the first eight bytes after the header are a second node.
    pub(super) fn has_second_node(self) -> bool {
        matches!(self, Rename | Link)
    }

    /// What a successful answer holds.
    pub(super) fn body(self) -> Body {
        match self {
            Lookup | Symlink | Mknod | Mkdir | Link => Body::Entry,
            Getattr | Setattr => Body::Exact(wire::ATTR_OUT),
            Readlink => Body::Path,
            Open | Opendir => Body::Exact(wire::OPEN_OUT),
            Read | Readdir => Body::Data,
            Write => Body::Exact(wire::WRITE_OUT),
            Statfs => Body::Exact(wire::STATFS_OUT),
            Getxattr | Listxattr => Body::DataOrSize,
            Create => Body::Create,
            Lseek => Body::Exact(wire::LSEEK_OUT),
            // INIT's length depends on the version in it.
            Init | Unlink | Rmdir | Rename | Release | Releasedir | Fsync | Fsyncdir | Setxattr
            | Removexattr | Flush | Access | Fallocate => Body::Nothing,
        }
    }

    /// Whether asking a second daemon what the first had been asked changes nothing.
    pub(super) fn only_reads(self) -> bool {
        match self {
            Lookup | Getattr | Readlink | Open | Read | Statfs | Getxattr | Listxattr | Opendir
            | Readdir | Access | Lseek => true,
            Setattr | Symlink | Mknod | Mkdir | Unlink | Rmdir | Rename | Link | Write
            | Release | Fsync | Setxattr | Removexattr | Flush | Init | Releasedir | Fsyncdir
            | Create | Fallocate => false,
        }
    }

    /// Whether it changes a file's bytes or saves them: two of these on one file keep their order.
    pub(super) fn changes_file(self) -> bool {
        matches!(self, Write | Setattr | Fallocate | Flush | Fsync)
    }

    /// Whether a call with a descriptor sends it without the handle: fstat(2), fchmod(2), fgetxattr(2).
    pub(super) fn asks_of_open_file(self) -> bool {
        matches!(
            self,
            Getattr | Setattr | Getxattr | Setxattr | Listxattr | Removexattr
        )
    }

    /// Whether it closes a handle.
    pub(super) fn closes(self) -> bool {
        matches!(self, Release | Releasedir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_that_of_the_header() {
        for (number, opcode) in [
            (1, Some(Lookup)),
            (12, Some(Rename)),
            (26, Some(Init)),
            (29, Some(Releasedir)),
            (35, Some(Create)),
            (46, Some(Lseek)),
            (FORGET, None),
            (INTERRUPT, None),
            (39, None),
            (45, None),
            (4096, None),
        ] {
            assert_eq!(Opcode::of(number), opcode, "{number}");
        }
    }
}
