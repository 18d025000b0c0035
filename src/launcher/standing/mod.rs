//! Machines that stand there already: each has one ready node for each job that it may run at the same time.
//!
//! A machine is looked at before its nodes are made, once after a start or a change of its configuration, and when a
//! node of it has been used. One that does not answer, or has not the host key that it must have, has no ready
//! nodes, and is looked at again after a pause that grows. A node is a record and nothing more: when it has been used
//! it is deleted like any other, and its place is taken by a new one. What is in use is never touched; what leaves
//! the configuration while a job runs on it is not made again.
//!
//! [`plan()`] decides, from configuration, records, what was seen, and time. A [`Keeper`] is the thread that has it
//! carried out for one provider. The rest of the launcher tells it about the provider's nodes, and asks it before one
//! is given to a request.

mod job;
mod keeper;
mod plan;
mod record;
mod working;

pub use keeper::{Away, Keeper};
pub use plan::{Order, Plan, Seen, Sight, Sights, Why, plan};
pub use record::LAUNCHER;
