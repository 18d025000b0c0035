//! What a daemon of plain threads needs, without any knowledge of Nodepool.

mod stop;

pub use stop::{Interrupted, StopSource, StopToken, Waited};
