//! What the system says of this process.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// This process.
#[derive(Debug, Default)]
pub(in crate::web) struct Process {
    /// Memory in use, in bytes.
    pub(in crate::web) resident: Option<u64>,
    /// Addresses in use, in bytes.
    pub(in crate::web) virtual_size: Option<u64>,
    /// The number of threads, registered or not.
    pub(in crate::web) threads: Option<u64>,
    /// The number of open files.
    pub(in crate::web) files: Option<u64>,
    /// How many it may be.
    pub(in crate::web) most_files: Option<u64>,
}

impl Process {
    /// As it is now. What cannot be read is missing.
    pub(in crate::web) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            value.split_whitespace().next()?.parse::<u64>().ok()
        };
        // Without the one by which it is read.
        let files = fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1) as u64);
        Self {
            resident: number("VmRSS").map(|kib| kib * 1024),
            virtual_size: number("VmSize").map(|kib| kib * 1024),
            threads: number("Threads"),
            files,
            most_files: getrlimit(Resource::Nofile).current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let process = Process::now();
        let all = [process.resident, process.virtual_size, process.threads, process.files];
        assert!(all.iter().all(|found| found.is_some_and(|number| number > 0)), "{process:?}");
        assert!(process.resident < process.virtual_size, "{process:?}");
    }
}
