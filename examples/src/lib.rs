//! What the runnable programs of Cerebro share.

pub mod reference;
