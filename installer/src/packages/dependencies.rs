//! What an administrator chooses for the dependencies of ossfs, as the command line has it.

/// Where the packages that ossfs needs come from.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dependencies {
    // Not a documentation comment: clap would show each option of --help over several lines.
    // They must be on the node.
    Installed,
    // From the node's own repositories, over the network.
    Repositories,
}
