//! The FUSE wire format as far as the relay reads or changes it: `linux/fuse.h` of Linux 6.4
//! (protocol 7.38), of which 7.12 to 7.31 are spoken. All numbers are in the machine's byte order.
//!
//! The readers give 0 past the end of a message, so that no message can make the relay panic;
//! whoever reads a field has checked the message's length before where it matters.

/// `struct fuse_in_header`.
pub(super) const IN_HEADER: usize = 40;
/// `struct fuse_out_header`.
pub(super) const OUT_HEADER: usize = 16;
/// `struct fuse_entry_out`.
pub(super) const ENTRY_OUT: usize = 128;
/// `struct fuse_attr_out`.
pub(super) const ATTR_OUT: usize = 104;
/// `struct fuse_open_out`.
pub(super) const OPEN_OUT: usize = 16;
/// `struct fuse_statfs_out`.
pub(super) const STATFS_OUT: usize = 80;
/// `struct fuse_write_out`.
pub(super) const WRITE_OUT: usize = 8;
/// `struct fuse_lseek_out`.
pub(super) const LSEEK_OUT: usize = 8;
/// `struct fuse_getxattr_out`.
pub(super) const GETXATTR_OUT: usize = 8;
/// `struct fuse_init_out` since 7.23.
pub(super) const INIT_OUT: usize = 64;
/// `struct fuse_init_out` before 7.23.
pub(super) const INIT_OUT_OLD: usize = 24;
/// `struct fuse_init_in` before 7.36.
pub(super) const INIT_IN: usize = 16;
/// Where the name begins in `struct fuse_dirent`.
pub(super) const DIRENT_NAME: usize = 24;
/// `FUSE_NAME_MAX` of the kernel's fs/fuse/fuse_i.h: longer names make it fail the whole listing.
pub(super) const NAME_MAX: usize = 1024;

/// `FUSE_ROOT_ID`, for the kernel, the relay and the daemon.
pub(super) const ROOT: u64 = 1;
/// The most bytes of one READ or WRITE: 32 pages of 4 KiB, the kernel's own bound without
/// `FUSE_MAX_PAGES`, and what fits a packet to the daemon.
pub(super) const MAX_DATA: u32 = 128 * 1024;
/// What a buffer for one message must hold, in bytes: `MAX_DATA`, the headers, and two names.
pub const BUFFER: usize = MAX_DATA as usize + 4096 + 4096;

/// `FUSE_NOTIFY_INVAL_INODE`.
pub(super) const NOTIFY_INVAL_INODE: i32 = 2;
/// `FUSE_NOTIFY_INVAL_ENTRY`.
pub(super) const NOTIFY_INVAL_ENTRY: i32 = 3;
/// `FUSE_NOTIFY_RESEND` (Linux 6.9).
pub(super) const NOTIFY_RESEND: i32 = 7;
/// `FUSE_UNIQUE_RESEND`: set in the unique of a request that the kernel had handed over before. The
/// answer bears it, too.
pub(super) const UNIQUE_RESEND: u64 = 1 << 63;
/// `FUSE_GETATTR_FH`: the request names a handle.
pub(super) const GETATTR_FH: u32 = 1;
/// `FATTR_FH`: the request names a handle.
pub(super) const FATTR_FH: u32 = 1 << 6;
/// `FOPEN_DIRECT_IO`.
pub(super) const FOPEN_DIRECT_IO: u32 = 1;
/// `FOPEN_KEEP_CACHE`.
pub(super) const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_NONSEEKABLE`.
pub(super) const FOPEN_NONSEEKABLE: u32 = 1 << 2;

/// Offsets of `struct fuse_in_header`.
pub(super) mod request {
    pub(in super::super) const LEN: usize = 0;
    pub(in super::super) const OPCODE: usize = 4;
    pub(in super::super) const UNIQUE: usize = 8;
    pub(in super::super) const NODE: usize = 16;
    pub(in super::super) const TID: usize = 32;
}

/// Offsets of `struct fuse_out_header`.
pub(super) mod answer {
    pub(in super::super) const LEN: usize = 0;
    pub(in super::super) const ERROR: usize = 4;
    pub(in super::super) const UNIQUE: usize = 8;
}

/// Offsets of `struct fuse_entry_out`.
pub(super) mod entry {
    pub(in super::super) const NODE: usize = 0;
    pub(in super::super) const GENERATION: usize = 8;
    pub(in super::super) const ATTR: usize = 40;
}

/// Offsets of `struct fuse_attr`, and in `struct fuse_attr_out`.
pub(super) mod attr {
    pub(in super::super) const IN_ATTR_OUT: usize = 16;
    pub(in super::super) const MODE: usize = 60;
    pub(in super::super) const UID: usize = 68;
    pub(in super::super) const GID: usize = 72;
    pub(in super::super) const FLAGS: usize = 84;
}

/// The number at `offset`, 0 past the end.
pub(super) fn u32_at(message: &[u8], offset: usize) -> u32 {
    match message.get(offset..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => u32::from_ne_bytes(*bytes),
        None => 0,
    }
}

/// The number at `offset`, 0 past the end.
pub(super) fn u64_at(message: &[u8], offset: usize) -> u64 {
    match message.get(offset..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => u64::from_ne_bytes(*bytes),
        None => 0,
    }
}

/// Writes the number at `offset`; nothing past the end.
pub(super) fn set_u32(message: &mut [u8], offset: usize, value: u32) {
    if let Some(bytes) = message
        .get_mut(offset..)
        .and_then(<[u8]>::first_chunk_mut::<4>)
    {
        *bytes = value.to_ne_bytes();
    }
}

/// Writes the number at `offset`; nothing past the end.
pub(super) fn set_u64(message: &mut [u8], offset: usize, value: u64) {
    if let Some(bytes) = message
        .get_mut(offset..)
        .and_then(<[u8]>::first_chunk_mut::<8>)
    {
        *bytes = value.to_ne_bytes();
    }
}

/// The bytes from `offset` to the first NUL; what is there is left out without one.
pub(super) fn name_at(message: &[u8], offset: usize) -> &[u8] {
    let rest = message.get(offset..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    rest.get(..end).unwrap_or_default()
}

/// A request: header and `body`, as root and as no process.
pub(super) fn request(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; IN_HEADER];
    message.extend_from_slice(body);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    set_u32(&mut message, request::LEN, length);
    set_u32(&mut message, request::OPCODE, opcode);
    set_u64(&mut message, request::NODE, node);
    message
}

/// An answer without a body. `error` is 0 or a positive errno.
pub(super) fn answer(unique: u64, error: i32) -> [u8; OUT_HEADER] {
    let mut message = [0; OUT_HEADER];
    set_u32(&mut message, answer::LEN, OUT_HEADER as u32);
    set_u32(&mut message, answer::ERROR, (-error).cast_unsigned());
    set_u64(&mut message, answer::UNIQUE, unique);
    message
}

/// An answer with a body.
pub(super) fn answer_with(unique: u64, body: &[u8]) -> Vec<u8> {
    let mut message = answer(unique, 0).to_vec();
    message.extend_from_slice(body);
    let length = message.len() as u32;
    set_u32(&mut message, answer::LEN, length);
    message
}

/// The notification that drops an inode's attributes and all its cached pages:
/// `struct fuse_notify_inval_inode_out` with offset 0 and length 0 (to the end).
pub(super) fn invalidate_inode(node: u64) -> Vec<u8> {
    let mut message = vec![0; OUT_HEADER + 24];
    set_u32(&mut message, answer::LEN, 40);
    set_u32(
        &mut message,
        answer::ERROR,
        NOTIFY_INVAL_INODE.cast_unsigned(),
    );
    set_u64(&mut message, OUT_HEADER, node);
    message
}

/// The notification that drops a name, so that the kernel looks it up again:
/// `struct fuse_notify_inval_entry_out` and the name.
pub(super) fn invalidate_entry(parent: u64, name: &[u8]) -> Vec<u8> {
    let mut body = [0; 16];
    set_u64(&mut body, 0, parent);
    set_u32(&mut body, 8, name.len() as u32);
    let mut message = answer_with(0, &[&body, name, b"\0"].concat());
    let code = NOTIFY_INVAL_ENTRY.cast_unsigned();
    set_u32(&mut message, answer::ERROR, code);
    message
}

/// The notification that has the kernel hand over every request once more that it has no answer to,
/// marked with `UNIQUE_RESEND`: for a process that succeeds one which was killed. Older kernels refuse
/// it.
pub fn resend() -> [u8; OUT_HEADER] {
    let mut message = [0; OUT_HEADER];
    set_u32(&mut message, answer::LEN, OUT_HEADER as u32);
    set_u32(&mut message, answer::ERROR, NOTIFY_RESEND.cast_unsigned());
    message
}

/// Makes `fuse_attr` at `offset` what the kernel shall see: no flags (submounts, DAX), and the
/// daemon's own uid and gid `own` as root's.
pub(super) fn clean_attr(message: &mut [u8], offset: usize, own: Option<u32>) {
    set_u32(message, offset + attr::FLAGS, 0);
    if let Some(own) = own {
        for field in [attr::UID, attr::GID] {
            if u32_at(message, offset + field) == own {
                set_u32(message, offset + field, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_past_the_end_are_zero_and_are_not_written() {
        let mut message = [0xff; 10];
        assert_eq!(u32_at(&message, 7), 0);
        assert_eq!(u64_at(&message, 3), 0);
        assert_eq!(u64_at(&message, usize::MAX), 0);
        set_u64(&mut message, 3, 1);
        set_u32(&mut message, 11, 1);
        assert_eq!(message, [0xff; 10]);
    }

    #[test]
    fn a_name_ends_at_its_nul() {
        for (message, offset, name) in [
            (&b"ab\0cd\0"[..], 0, &b"ab"[..]),
            (b"ab\0cd\0", 3, b"cd"),
            (b"ab\0cd", 3, b""),
            (b"ab", 5, b""),
        ] {
            assert_eq!(name_at(message, offset), name);
        }
    }

    #[test]
    fn an_answer_carries_the_negative_errno() {
        let message = answer(7, 5);
        assert_eq!(u32_at(&message, 0), 16);
        assert_eq!(u32_at(&message, 4).cast_signed(), -5);
        assert_eq!(u64_at(&message, 8), 7);
    }

    /// What a compiler says of the structures in linux/fuse.h.
    #[test]
    fn sizes_and_offsets_are_those_of_the_header() {
        for (name, is, header) in [
            ("fuse_in_header", IN_HEADER, 40),
            ("fuse_in_header.opcode", request::OPCODE, 4),
            ("fuse_in_header.unique", request::UNIQUE, 8),
            ("fuse_in_header.nodeid", request::NODE, 16),
            ("fuse_in_header.pid", request::TID, 32),
            ("fuse_out_header", OUT_HEADER, 16),
            ("fuse_out_header.error", answer::ERROR, 4),
            ("fuse_out_header.unique", answer::UNIQUE, 8),
            ("fuse_entry_out", ENTRY_OUT, 128),
            ("fuse_entry_out.generation", entry::GENERATION, 8),
            ("fuse_entry_out.attr", entry::ATTR, 40),
            ("fuse_attr_out", ATTR_OUT, 104),
            ("fuse_attr_out.attr", attr::IN_ATTR_OUT, 16),
            ("fuse_attr.mode", attr::MODE, 60),
            ("fuse_attr.uid", attr::UID, 68),
            ("fuse_attr.gid", attr::GID, 72),
            ("fuse_attr.flags", attr::FLAGS, 84),
            ("fuse_open_out", OPEN_OUT, 16),
            ("fuse_statfs_out", STATFS_OUT, 80),
            ("fuse_write_out", WRITE_OUT, 8),
            ("fuse_lseek_out", LSEEK_OUT, 8),
            ("fuse_getxattr_out", GETXATTR_OUT, 8),
            ("fuse_init_out", INIT_OUT, 64),
            ("fuse_dirent.name", DIRENT_NAME, 24),
            (
                "fuse_notify_inval_entry_out",
                invalidate_entry(1, b"name").len(),
                16 + 16 + 5,
            ),
            (
                "fuse_notify_inval_inode_out",
                invalidate_inode(1).len(),
                16 + 24,
            ),
        ] {
            assert_eq!(is, header, "{name}");
        }
    }

    #[test]
    fn only_the_daemons_own_ids_become_root() {
        let mut message = vec![0; OUT_HEADER + ATTR_OUT];
        let at = OUT_HEADER + attr::IN_ATTR_OUT;
        set_u32(&mut message, at + attr::UID, 7000);
        set_u32(&mut message, at + attr::GID, 7001);
        set_u32(&mut message, at + attr::FLAGS, 1);
        clean_attr(&mut message, at, Some(7000));
        assert_eq!(u32_at(&message, at + attr::UID), 0);
        assert_eq!(u32_at(&message, at + attr::GID), 7001);
        assert_eq!(u32_at(&message, at + attr::FLAGS), 0);
        assert_eq!(at + 88, message.len(), "fuse_attr ends fuse_attr_out");
        assert_eq!(entry::ATTR + 88, ENTRY_OUT);
    }
}
