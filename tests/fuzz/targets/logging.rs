//! The file of `-l` in each of its forms: YAML of ours, YAML of Python's, ini.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use nodepool::logging::LogSettings;
use nodepool_drivers::api::Severity;
use nodepool_fuzz::check_place;

fuzz_target!(|text: &str| {
    match LogSettings::parse(Path::new("/etc/nodepool/logging"), text) {
        Ok(settings) => {
            let _ = format!("{settings:?}");
            for warning in settings.warnings() {
                assert!(warning.problem.severity != Severity::Error, "{warning}");
                check_place(warning, text);
            }
        }
        Err(error) => {
            let problems = error.problems();
            assert!(problems.iter().any(|found| found.problem.severity == Severity::Error), "{problems:?}");
            problems.iter().for_each(|problem| check_place(problem, text));
        }
    }
});
