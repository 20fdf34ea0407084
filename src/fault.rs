//! Points at which a test has the driver killed, to see that the next call copes with what is left.
//! A release build has none.

/// Ends this process with SIGKILL, if the environment names the point: `OSS_TEST_KILL_AT`.
#[cfg(debug_assertions)]
pub(crate) fn point(name: &str) {
    if std::env::var_os("OSS_TEST_KILL_AT").is_some_and(|at| at == name) {
        let own = nix::unistd::Pid::this();
        // It does not come back.
        let _ = nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &str) {}
