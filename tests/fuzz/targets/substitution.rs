//! `%(NODEPOOL_NAME)` in a text: only variables of ours come in, each once, and all the rest stays as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodepool::config::Env;

fuzz_target!(|text: &str| {
    let nothing = Env::default().substitute(text);
    assert_eq!(nothing.text, text);
    assert!(nothing.unset.iter().all(|name| text.contains(&format!("%({name})"))), "{:?}", nothing.unset);

    // A value is not looked at again.
    let value = "%(NODEPOOL_A) %(NODEPOOL_B)";
    let env: Env = [("NODEPOOL_A", value), ("HOME", "/root")].into_iter().collect();
    let done = env.substitute(text);
    assert_eq!(done.text, text.replace("%(NODEPOOL_A)", value));
    assert!(
        done.unset.iter().all(|name| name.starts_with("NODEPOOL_") && name != "NODEPOOL_A"),
        "{:?}",
        done.unset
    );
});
