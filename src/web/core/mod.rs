//! What the pages of all daemons have in common: the server, which pages there are and for how long a copy is good, who
//! may see them, and how HTML and metrics are written. It knows no daemon.

pub(super) mod exposition;
pub(super) mod frame;
mod hosts;
pub(super) mod html;
pub(super) mod http;
pub(super) mod pages;
mod process;
pub(super) mod readiness;
pub(super) mod rows;
mod threads;
pub(super) mod units;
