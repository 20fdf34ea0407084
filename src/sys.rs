//! The operating system: processes, deadlines, locks, and files that belong to root alone.

pub mod boot_clock;
pub mod command;
pub mod deadline;
pub(crate) mod failpoint;
pub(crate) mod helper;
pub mod lock;
pub mod process;
pub mod root_only;
pub(crate) mod selinux;
pub(crate) mod tree;
