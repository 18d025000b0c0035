//! nodepool.yaml and, behind a NUL, the secure file: from the text to the resolved configuration.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use nodepool::config::{Config, ConfigFiles, DiskImage, Env};
use nodepool_drivers::api::Severity;
use nodepool_fuzz::check_place;

const MAIN: &str = "/etc/nodepool/nodepool.yaml";
const SECURE: &str = "/etc/nodepool/secure.yaml";

fuzz_target!(|text: &str| {
    let (main, secure) = text.split_once('\0').map_or((text, None), |(main, secure)| (main, Some(secure)));
    let env: Env =
        [("NODEPOOL_A", "a"), ("NODEPOOL_NONE", ""), ("NODEPOOL_LINES", "b\n  c\r\n")].into_iter().collect();
    let files = ConfigFiles::new(MAIN, secure.map(|_| Path::new(SECURE)), env);
    let parsed = files.parse(main, secure);
    let problems = match &parsed {
        Ok((config, warnings)) => {
            assert!(warnings.iter().all(|found| found.problem.severity != Severity::Error), "{warnings:?}");
            cannot_be_wrong(config);
            warnings
        }
        Err(error) => {
            let problems = error.problems();
            assert!(problems.iter().any(|found| found.problem.severity == Severity::Error), "{problems:?}");
            problems
        }
    };
    for problem in problems {
        let file = if problem.file == Path::new(MAIN) { main } else { secure.unwrap_or_default() };
        check_place(problem, file);
    }
});

/// What the rest of the program relies on.
fn cannot_be_wrong(config: &Config) {
    assert!(*config == config.clone());
    let _ = format!("{config:?}");
    for (name, image) in &config.diskimages {
        let DiskImage { env_vars, formats, keep_formats, dib_cmd, elements, release, .. } = &**image;
        assert_eq!(*name, image.name);
        assert!(fit_for_paths(name) && !name.contains(".."), "{name:?}");
        assert!(dib_cmd.first().is_some_and(|program| !program.is_empty()), "{dib_cmd:?}");
        let formats = formats.iter().chain(keep_formats);
        assert!(formats.clone().all(|format| format.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        assert!(formats.clone().all(|format| !format.is_empty()));
        let variable = |(name, value): (&String, &String)| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        assert!(env_vars.iter().all(variable), "{:?}", env_vars.keys());
        assert!(dib_cmd.iter().chain(elements).chain([release]).all(|word| !word.contains('\0')));
        assert!(image.keep_builds > 0);
        assert!(!image.rebuild_age.is_zero() && !image.build_timeout.is_zero());
    }
    for (name, provider) in &config.providers {
        assert_eq!(*name, provider.settings().name);
        assert!(fit_for_paths(name), "{name:?}");
        for image in provider.images().iter().flat_map(|images| images.diskimages.keys()) {
            let built = config.diskimages.get(image).unwrap_or_else(|| panic!("{name} lists {image:?}"));
            assert!(!built.formats.is_empty());
        }
    }
    assert!(!config.zookeeper.timeout.is_zero());
    assert!(config.zookeeper.servers.iter().all(|server| !server.host.is_empty() && server.port > 0));
    assert!(!config.zookeeper.chroot.ends_with('/'), "{:?}", config.zookeeper.chroot);
}

/// Names are parts of files' names and of znodes' paths.
fn fit_for_paths(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}
