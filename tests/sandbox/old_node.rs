//! A node that lacks something: system calls of the thread that starts a sandbox, and of what it
//! starts, fail as they do there.

use crate::world::{ended_by_itself, with_world};
use alicloud_oss::sandbox::{End, Mode};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// What a node lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    /// User namespaces: `user.max_user_namespaces` is 0.
    UserNamespaces,
    /// PID namespaces for a process with more than one thread: Linux before 3.13.
    PidNamespacesOfThreads,
    /// PID namespaces: a kernel without them.
    PidNamespaces,
    /// The system call seccomp(2): Linux before 3.17.
    Seccomp,
}

/// Has this thread, for the rest of its life, live on such a node.
fn lack(lacks: &[Lack]) {
    for lack in lacks {
        let (call, condition, errno) = match lack {
            Lack::UserNamespaces => (libc::SYS_unshare, has(libc::CLONE_NEWUSER), libc::ENOSPC),
            Lack::PidNamespaces => (libc::SYS_unshare, has(libc::CLONE_NEWPID), libc::EINVAL),
            Lack::PidNamespacesOfThreads => {
                let only = (SeccompCmpOp::Eq, libc::CLONE_NEWPID);
                (libc::SYS_unshare, Some(only), libc::EINVAL)
            }
            Lack::Seccomp => (libc::SYS_seccomp, None, libc::ENOSYS),
        };
        let rules = condition.map(|(operator, value)| {
            let value = u64::from(value.cast_unsigned());
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value);
            SeccompRule::new(vec![condition.unwrap()]).unwrap()
        });
        let filter = SeccompFilter::new(
            [(call, rules.into_iter().collect())].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(errno.cast_unsigned()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        apply_filter(&BpfProgram::try_from(filter.unwrap()).unwrap()).unwrap();
    }
}

fn has(flag: i32) -> Option<(SeccompCmpOp, i32)> {
    let mask = u64::from(flag.cast_unsigned());
    Some((SeccompCmpOp::MaskedEq(mask), flag))
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_a_node_lacks_is_left_out_and_the_rest_holds() {
    use Lack::{PidNamespaces, PidNamespacesOfThreads, Seccomp, UserNamespaces};
    let no_user = "no user namespace (ENOSPC: No space left on device)";
    let no_pid = "no PID namespace";
    let no_filter = "no seccomp filter \
                     (Error calling `seccomp`: Function not implemented (os error 38))";
    let cases: [(&[Lack], &[&str]); 5] = [
        (&[UserNamespaces], &[no_user]),
        (&[PidNamespacesOfThreads], &[]),
        (&[PidNamespaces], &[no_pid]),
        (&[Seccomp], &[no_filter]),
        (
            &[PidNamespaces, UserNamespaces, Seccomp],
            &[no_pid, no_user, no_filter],
        ),
    ];
    for (lacks, left_out) in cases {
        for signal in [None, Some(Signal::SIGSEGV), Some(Signal::SIGKILL)] {
            with_world(|world| {
                world.store.put("docker", "greeting", "hello");
                lack(lacks);
                let spec = world.spec(Mode::Full);
                let mut daemon = world.start(&spec).unwrap();
                assert_eq!(daemon.left_out(), left_out, "{lacks:?}");
                let file = world.staging().join("greeting");
                assert_eq!(std::fs::read_to_string(file).unwrap(), "hello", "{lacks:?}");
                let pid = daemon.daemon_pid().unwrap();
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
                assert!(spec.program.ends_with(name.trim()), "{lacks:?}: {name}");
                match signal {
                    Some(Signal::SIGKILL) => daemon.kill(),
                    Some(signal) => kill(Pid::from_raw(pid.cast_signed()), signal).unwrap(),
                    None => world.unmount(),
                }
                let end = daemon.wait().unwrap();
                match signal {
                    Some(signal) => assert_eq!(end, End::Killed(signal as i32), "{lacks:?}"),
                    None => assert!(ended_by_itself(end), "{lacks:?}: {end}"),
                }
            });
        }
    }
}
