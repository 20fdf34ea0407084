//! Whether SELinux is on.

/// Whether the kernel has SELinux switched on: only then it registers selinuxfs (as libselinux's
/// `is_selinux_enabled` looks for it). False where that cannot be read.
pub(crate) fn is_on() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| has_selinuxfs(&text))
}

/// Whether the text of `/proc/filesystems` (proc_filesystems(5)) has selinuxfs.
fn has_selinuxfs(text: &str) -> bool {
    text.lines()
        .any(|line| line.split_whitespace().last() == Some("selinuxfs"))
}

#[cfg(test)]
mod tests {
    use super::has_selinuxfs;

    #[test]
    fn selinux_is_on_where_its_file_system_is() {
        for (text, expected) in [
            ("nodev\tsysfs\nnodev\tselinuxfs\n\text4\n", true),
            ("nodev\tsysfs\n\text4\n", false),
            ("nodev\tnot-selinuxfs\n", false),
            ("", false),
        ] {
            assert_eq!(has_selinuxfs(text), expected, "{text}");
        }
    }
}
