//! Whether kubelet has loaded the driver that is installed: the driver's `init` leaves a record in
//! the state directory.

use alicloud_oss::kubelet::group::PROGRAMS;
use alicloud_oss::state::init_record::InitRecord;

/// Why kubelet has not loaded the driver `build`, which was installed at `since` (in seconds since
/// 1970); nothing if it has. `kubelets` are those that are known to run, if any are.
pub(crate) fn problem(
    record: Option<&InitRecord>,
    build: &str,
    since: u64,
    kubelets: &[u32],
) -> Option<String> {
    let Some(record) = record else {
        return Some(
            "kubelet has not loaded the driver yet: it does so with the next Pod that has a volume"
                .to_owned(),
        );
    };
    if record.build != build {
        return Some(format!(
            "kubelet has loaded {:?}, but {build:?} is installed: it loads that with the next Pod \
             that has a volume",
            record.build
        ));
    }
    let (caller, pid) = (&record.caller, record.pid);
    if !PROGRAMS.contains(&caller.as_str()) && !kubelets.contains(&pid) {
        return Some(format!(
            "the driver was loaded by {caller:?} (pid {pid}), not by kubelet"
        ));
    }
    (record.time < since).then(|| {
        "kubelet has not loaded the driver since it was installed: it does so with the next Pod \
         that has a volume"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::problem;
    use alicloud_oss::state::init_record::InitRecord;

    fn record(build: &str, pid: u32, caller: &str, time: u64) -> InitRecord {
        InitRecord {
            build: build.to_owned(),
            pid,
            caller: caller.to_owned(),
            time,
        }
    }

    #[test]
    fn ready_is_this_build_run_by_kubelet_after_it_was_installed() {
        for (record, expected) in [
            (Some(record("b", 7, "kubelet", 100)), None),
            (Some(record("b", 7, "k3s-server", 101)), None),
            (Some(record("b", 7, "kubelite", 101)), None),
            (Some(record("b", 42, "renamed", 101)), None),
            (None, Some("kubelet has not loaded the driver yet")),
            (
                Some(record("a", 7, "kubelet", 101)),
                Some("kubelet has loaded \"a\", but \"b\""),
            ),
            // Within the second in which this one was installed.
            (
                Some(record("a", 7, "kubelet", 100)),
                Some("kubelet has loaded \"a\", but \"b\""),
            ),
            (
                Some(record("b", 7, "oss-installer", 101)),
                Some("the driver was loaded by \"oss-installer\" (pid 7), not by kubelet"),
            ),
            (
                Some(record("b", 7, "kubelet", 99)),
                Some("kubelet has not loaded the driver since"),
            ),
        ] {
            let found = problem(record.as_ref(), "b", 100, &[42]);
            match (&found, expected) {
                (None, None) => {}
                (Some(text), Some(start)) => assert!(text.starts_with(start), "{text}"),
                _ => panic!("{record:?}: {found:?}"),
            }
        }
    }
}
