//! Numbers in the text format of Prometheus.

use std::fmt::Write as _;

use super::process::Process;

/// Metrics that are being written.
#[derive(Default)]
pub(in crate::web) struct Exposition(String);

impl Exposition {
    /// Begins a metric: what follows is samples of it.
    pub(in crate::web) fn metric(&mut self, name: &'static str, kind: &str, help: &str) -> Metric<'_> {
        // A text can always be written to.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Metric { out: self, name }
    }

    /// Begins a metric whose value goes up and down.
    pub(in crate::web) fn gauge(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric(name, "gauge", help)
    }

    /// Begins a metric whose value only grows.
    pub(in crate::web) fn counter(&mut self, name: &'static str, help: &str) -> Metric<'_> {
        self.metric(name, "counter", help)
    }

    /// The version of the program.
    pub(in crate::web) fn build_info(&mut self) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        self.gauge("nodepool_build_info", "The program.").sample(&version, 1);
    }

    /// What the system says of this process, and when it was started, in UNIX seconds.
    pub(in crate::web) fn process(&mut self, started: f64) {
        let process = Process::now();
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory in use in bytes.", process.resident),
            ("process_virtual_memory_bytes", "Addresses in use in bytes.", process.virtual_size),
            ("process_threads", "Threads of the process.", process.threads),
            ("process_open_fds", "Open files.", process.files),
            ("process_max_fds", "How many files may be open.", process.most_files),
        ] {
            if let Some(value) = value {
                self.gauge(name, help).sample(&[], value);
            }
        }
        self.gauge("process_start_time_seconds", "When the daemon was started, in UNIX seconds.")
            .sample(&[], started);
    }

    /// The whole.
    pub(in crate::web) fn into_text(self) -> String {
        self.0
    }
}

/// A metric that samples are being written of.
pub(in crate::web) struct Metric<'a> {
    out: &'a mut Exposition,
    name: &'static str,
}

impl Metric<'_> {
    /// Adds a sample with these labels.
    pub(in crate::web) fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let text = &mut self.out.0;
        text.push_str(self.name);
        for (index, (name, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{name}=\"{}\"", if index == 0 { '{' } else { ',' }, escape(value));
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut out = Exposition::default();
        let mut metric = out.gauge("a", "What it is.");
        metric.sample(&[], 1);
        metric.sample(&[("image", "q\"\\\n"), ("state", "ready")], 2.5);
        let expected =
            "# HELP a What it is.\n# TYPE a gauge\na 1\na{image=\"q\\\"\\\\\\n\",state=\"ready\"} 2.5\n";
        assert_eq!(out.into_text(), expected);
    }
}
