//! The names of znodes below a lock: which are contenders, and who is first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodepool::zk::Lock;

fuzz_target!(|name: &str| {
    let number = Lock::number(name);
    // A path before it changes nothing, and nothing can follow.
    assert_eq!(Lock::number(&format!("/nodepool/images/{name}")), number);
    assert_eq!(Lock::number(&format!("{name}x")), None);
    let Some(number) = number else { return };
    let (_, digits) = name.rsplit_once("__lock__").expect("a contender has the mark");
    let sign = if digits.starts_with('-') { "-" } else { "" };
    assert_eq!(format!("{sign}{:010}", number.abs()), digits);
});
