//! Prints what taking and releasing a named lock costs, against parking_lot's own: see `scripts/measure-locks`.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_types,
    reason = "a program that prints, about what ours are made of"
)]

use std::hint::black_box;
use std::time::Instant;

/// Rounds of one measurement, of which the fastest counts: the machine may do other things meanwhile.
const ROUNDS: u32 = 2_000_000;
const MEASUREMENTS: u32 = 15;

fn main() {
    let (bare, named) = (parking_lot::Mutex::new(0u64), nodepool_threads::Mutex::new("measured", 0u64));
    let (mut of_bare, mut of_named) = (f64::MAX, f64::MAX);
    for _ in 0..MEASUREMENTS {
        of_bare = of_bare.min(measure(|| *black_box(&bare).lock() += 1));
        of_named = of_named.min(measure(|| *black_box(&named).lock() += 1));
    }
    println!("uncontended lock and unlock: parking_lot {of_bare:.1} ns, named {of_named:.1} ns");
    let looks = 1_000;
    let begin = Instant::now();
    for _ in 0..looks {
        black_box(nodepool_threads::locks());
    }
    println!("locks(), nothing held: {:.2} µs", begin.elapsed().as_secs_f64() * 1e6 / f64::from(looks));
}

/// Nanoseconds per call.
fn measure(mut work: impl FnMut()) -> f64 {
    let begin = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
}
