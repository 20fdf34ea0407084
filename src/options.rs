//! The options of ossfs: what each is, and who may use it.

pub(crate) mod option;
pub(crate) mod policy;
pub(crate) mod refusal;
pub(crate) mod table;
