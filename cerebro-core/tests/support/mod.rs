//! What tests share; each uses a part of it.
#![allow(dead_code)]

pub(crate) mod process;
pub(crate) mod python;
