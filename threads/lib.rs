//! What a daemon of plain threads needs, without any knowledge of Nodepool: named threads that say what
//! they are doing, a watchdog over them, named locks that say who holds them, stop tokens with deadlines,
//! sockets that end with them, worker pools that lose no job, child process groups, signals on one thread, and
//! becoming a daemon.
//!
//! The only `unsafe` of the project is here.

mod child;
mod crash_point;
mod daemonize;
mod leftovers;
mod locks;
mod memory;
mod patient_socket;
mod pauses;
mod poll;
mod pool;
mod privileges;
mod proc_stat;
mod processes;
mod registry;
mod resolve;
mod signals;
mod stacks;
mod stop;
mod thread_caches;
mod waker;
mod watchdog;

pub use child::{ChildGroup, kill_child_groups};
pub use crash_point::crash_point;
pub use daemonize::{Detached, Startup, detach};
pub use leftovers::{Leftovers, Mark};
pub use locks::{Condvar, Cycle, Link, LockId, LockInfo, LockUser, Mutex, MutexGuard, deadlocks, locks};
pub use memory::{give_memory_back, trim_memory};
pub use patient_socket::PatientSocket;
pub use pauses::Pauses;
pub use poll::{poll_for_a_moment, poll_until};
pub use pool::{Finished, Job, Panicked, Pool};
pub use privileges::{
    Account, change_environment, close_inherited_files, default_signals, group_named, no_core_dumps,
};
pub use registry::{
    Activity, Ongoing, Thread, ThreadInfo, activity, activity_within, register_main, spawn, threads,
};
pub use resolve::{Resolver, SLOW_RESOLVER, Unresolved};
pub use signals::{Signal, SignalThread, StopSignals, block_dump_signal, block_signals};
pub use stacks::{Frame, StackDumper, ThreadStack};
pub use stop::{Interrupted, StopSource, StopToken, Waited};
pub use thread_caches::keep_no_thread_caches;
pub use waker::Waker;
pub use watchdog::{Overdue, Report, Watchdog};
