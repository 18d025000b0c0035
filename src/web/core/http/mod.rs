//! A small HTTP server for pages that people and monitoring look at: one thread, sockets that never block,
//! and a limit on everything that a client may cost. It knows nothing of what is served.
//!
//! Each connection carries one request. One thread is enough, because a page takes milliseconds, and it
//! cannot be occupied: a client that sends or reads slowly only occupies its own place among the connections,
//! until its time is up or a newer one needs it.

mod accept;
mod client;
mod request;
mod response;
mod server;

pub use request::Request;
pub use response::Status;
pub(in crate::web) use response::{Response, TEXT};
pub(in crate::web) use server::{Place, Server, Site};
