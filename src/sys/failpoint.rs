//! Points at which a test kills the driver, to check that the next call copes with what is left.
//! A release build has none.

/// Ends this process with SIGKILL, if the environment names the point as `OSS_TEST_KILL_AT`; panics,
/// if it names it as `OSS_TEST_PANIC_AT`.
#[cfg(debug_assertions)]
pub(crate) fn reach(name: &str) {
    let is_at = |variable| std::env::var_os(variable).is_some_and(|at| at == name);
    assert!(!is_at("OSS_TEST_PANIC_AT"), "requested by a test");
    if is_at("OSS_TEST_KILL_AT") {
        let own = nix::unistd::Pid::this();
        // It does not come back.
        let _ = nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn reach(_: &str) {}
