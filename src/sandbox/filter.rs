//! The system calls that ossfs, the libraries of any distribution, and `fusermount` need (seccomp(2)).
//!
//! Two filters, of which the stricter holds. The first lets pass what is listed; everything else does
//! not exist (ENOSYS), as on an older kernel: new calls, those of other ABIs, `clone3`, whose
//! arguments a filter cannot read. The second answers EPERM, as to any process without privileges:
//! libfuse takes that of mount(2) as the reason to ask `fusermount`.

mod calls;

use calls::{ALLOWED, DENIED};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Installs the filters; a node without them is reported.
pub(super) fn apply(left_out: &mut Vec<String>) {
    let programs = compile();
    let result = programs.and_then(|programs| {
        programs
            .iter()
            .try_for_each(|program| apply_filter(program).map_err(|e| e.to_string()))
    });
    if let Err(e) = result {
        left_out.push(format!("no seccomp filter ({e})"));
    }
}

fn compile() -> Result<[BpfProgram; 2], String> {
    let allow = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let errno = |errno: i32| SeccompAction::Errno(errno.cast_unsigned());
    Ok([
        program(allow, errno(libc::ENOSYS), SeccompAction::Allow)?,
        program(denied()?, SeccompAction::Allow, errno(libc::EPERM))?,
    ])
}

fn program(
    rules: Rules,
    other: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, String> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| e.to_string())?;
    SeccompFilter::new(rules, other, listed, architecture)
        .and_then(BpfProgram::try_from)
        .map_err(|e| e.to_string())
}

fn denied() -> Result<Rules, String> {
    let mut rules: Rules = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES
        .iter()
        .map(|flag| rule(&[(0, SeccompCmpOp::MaskedEq(*flag), *flag)]));
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    // Local sockets reach services of the node: those with an abstract name from any directory.
    let families = FAMILIES.map(|family| (0, SeccompCmpOp::Ne, family));
    rules.insert(libc::SYS_socket, vec![rule(&families)?]);
    // Input for somebody's terminal (ioctl_tty(2)).
    let terminal = TERMINAL.map(|request| rule(&[(1, SeccompCmpOp::Eq, request)]));
    rules.insert(
        libc::SYS_ioctl,
        terminal.into_iter().collect::<Result<_, _>>()?,
    );
    Ok(rules)
}

/// All of these conditions on the arguments: number of the argument, operator, value.
fn rule(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, String> {
    conditions
        .iter()
        .map(|(argument, operator, value)| {
            SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, operator.clone(), *value)
        })
        .collect::<Result<_, _>>()
        .and_then(SeccompRule::new)
        .map_err(|e| e.to_string())
}

/// The flags of clone(2) that make namespaces (`linux/sched.h`).
const NAMESPACES: [u64; 7] = [
    0x0002_0000, // CLONE_NEWNS
    0x0200_0000, // CLONE_NEWCGROUP
    0x0400_0000, // CLONE_NEWUTS
    0x0800_0000, // CLONE_NEWIPC
    0x1000_0000, // CLONE_NEWUSER
    0x2000_0000, // CLONE_NEWPID
    0x4000_0000, // CLONE_NEWNET
];

/// The families of sockets that ossfs may have: the network, and the list of the node's addresses.
const FAMILIES: [u64; 3] = [
    libc::AF_INET as u64,
    libc::AF_INET6 as u64,
    libc::AF_NETLINK as u64,
];

const TERMINAL: [u64; 2] = [
    0x5412, // TIOCSTI
    0x541c, // TIOCLINUX
];

#[cfg(test)]
mod tests {
    use super::{ALLOWED, DENIED, compile};
    use std::collections::BTreeSet;

    #[test]
    fn every_call_is_listed_once() {
        let all = ALLOWED.iter().chain(DENIED);
        let different: BTreeSet<&i64> = all.clone().collect();
        assert_eq!(all.count(), different.len());
    }

    #[test]
    fn the_filters_fit_a_kernel() {
        for program in compile().unwrap() {
            // BPF_MAXINSNS of linux/bpf_common.h.
            assert!((1..=4096).contains(&program.len()), "{}", program.len());
        }
    }
}
