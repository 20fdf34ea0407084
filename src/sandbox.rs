//! Running ossfs without root: namespaces, a root file system of its own, no capabilities.
