//! Has the linker compress the debug information of the released programs.
//!
//! They keep their line tables, so that a stack dump of a daemon in production names files and lines;
//! compressed, these take a third of the room. Whatever reads debug information reads it like this, too.

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        println!("cargo::rustc-link-arg-bins=-Wl,--compress-debug-sections=zlib");
    }
}
