//! What tests share.

pub(crate) mod python;
