//! `/etc/updatedb.conf` (updatedb.conf(5)): the file systems that updatedb leaves out. Crawling a
//! bucket costs a request for each object. What is added is marked by a line of its own, and can be
//! removed again byte by byte, whatever else the administrator changes.

use alicloud_oss::mounts::table::ossfs_types;

/// The beginning of the marker; after it is what was added.
const MARKER: &str = "# alicloud-oss added to PRUNEFS:";

/// `text` with the file systems left out; nothing if they are already.
pub(crate) fn prune(text: &str) -> Option<String> {
    if text.contains(MARKER) {
        return None;
    }
    let line = text.lines().find(|line| value(line).is_some());
    let Some((line, (start, end))) = line.and_then(|line| Some((line, value(line)?))) else {
        // Without the variable nothing is left out by type.
        let (added, gap) = (
            ossfs_types().join(" "),
            if text.ends_with('\n') || text.is_empty() {
                ""
            } else {
                "\n"
            },
        );
        return Some(format!(
            "{text}{gap}{MARKER} line {added}\nPRUNEFS=\"{added}\"\n"
        ));
    };
    let present: Vec<&str> = line[start..end].split_whitespace().collect();
    let missing: Vec<&str> = ossfs_types()
        .iter()
        .copied()
        .filter(|name| !present.contains(name))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let added = missing.join(" ");
    let at = offset(text, line);
    Some(format!(
        "{}{MARKER} {added}\n{} {added}{}",
        &text[..at],
        &text[at..at + end],
        &text[at + end..]
    ))
}

/// `text` as it was before `prune`; nothing if that is not in it.
pub(crate) fn restore(text: &str) -> Option<String> {
    let marker = text.lines().find(|line| line.starts_with(MARKER))?;
    let at = offset(text, marker);
    let rest = text.get(at + marker.len() + 1..).unwrap_or("");
    let added = marker[MARKER.len()..].trim();
    if let Some(added) = added.strip_prefix("line ") {
        let line = format!("PRUNEFS=\"{added}\"\n");
        let rest = rest.strip_prefix(&line).unwrap_or(rest);
        return Some(format!("{}{rest}", &text[..at]));
    }
    let added = format!(" {added}");
    let restored = match rest.lines().find(|line| value(line).is_some()) {
        Some(line) => {
            let from = offset(rest, line);
            let changed = line.replacen(&added, "", 1);
            format!("{}{changed}{}", &rest[..from], &rest[from + line.len()..])
        }
        None => rest.to_owned(),
    };
    Some(format!("{}{restored}", &text[..at]))
}

/// The start and the end of the value of PRUNEFS in `line`, between its quotes.
fn value(line: &str) -> Option<(usize, usize)> {
    let rest = line.trim_start().strip_prefix("PRUNEFS")?.trim_start();
    let rest = rest.strip_prefix('=')?.trim_start();
    let inner = rest.strip_prefix('"')?;
    let start = line.len() - inner.len();
    Some((start, start + inner.find('"')?))
}

/// Where `part`, a piece of `text`, begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

#[cfg(test)]
mod tests {
    use super::{prune, restore};

    #[test]
    fn both_are_added_once_and_removed_again() {
        for (before, after) in [
            (
                "PRUNEPATHS=\"/tmp\"\nPRUNEFS=\"NFS tmpfs\"\n",
                "PRUNEPATHS=\"/tmp\"\n# alicloud-oss added to PRUNEFS: fuse.ossfs fuse.s3fs\n\
                 PRUNEFS=\"NFS tmpfs fuse.ossfs fuse.s3fs\"\n",
            ),
            (
                "PRUNEFS = \"fuse.s3fs\" # x\nlast",
                "# alicloud-oss added to PRUNEFS: fuse.ossfs\n\
                 PRUNEFS = \"fuse.s3fs fuse.ossfs\" # x\nlast",
            ),
            (
                "# PRUNEFS=\"x\"\n",
                "# PRUNEFS=\"x\"\n# alicloud-oss added to PRUNEFS: line fuse.ossfs fuse.s3fs\n\
                 PRUNEFS=\"fuse.ossfs fuse.s3fs\"\n",
            ),
        ] {
            assert_eq!(prune(before).as_deref(), Some(after));
            assert_eq!(restore(after).as_deref(), Some(before));
            assert_eq!(prune(after), None);
        }
        assert_eq!(prune("PRUNEFS=\"fuse.s3fs fuse.ossfs\"\n"), None);
        assert_eq!(restore("PRUNEFS=\"fuse.s3fs\"\n"), None);
    }

    #[test]
    fn an_administrators_changes_stay() {
        let pruned = prune("PRUNEFS=\"NFS\"\n").unwrap();
        let changed = pruned.replace("NFS", "NFS ceph") + "PRUNENAMES=\".git\"\n";
        assert_eq!(
            restore(&changed).unwrap(),
            "PRUNEFS=\"NFS ceph\"\nPRUNENAMES=\".git\"\n"
        );
    }
}
