//! The keeper against the real kernel: every step of a launch and its failure, identities, trees that do not
//! want to die, hand-over to a new manager, and the ends. The keeper forks and so must be alone in its
//! process; each test therefore drives one that runs as a process of its own.
//!
//! What needs root is skipped loudly without it.

#![allow(clippy::disallowed_methods, reason = "tests start the keeper itself, and end with a status")]
#![allow(unsafe_code, unreachable_pub)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "launch/attack.rs"]
mod attack;
#[path = "launch/ends.rs"]
mod ends;
#[path = "launch/hands.rs"]
mod hands;
#[path = "launch/identity.rs"]
mod identity;
#[path = "launch/inject.rs"]
mod inject;
#[path = "launch/provision.rs"]
mod provision;
#[path = "launch/rig.rs"]
mod rig;
#[path = "launch/sandbox.rs"]
mod sandbox;
#[path = "launch/steps.rs"]
mod steps;
#[path = "launch/trees.rs"]
mod trees;

use keepd::sys::signal;
use std::panic::catch_unwind;

/// A test and its name.
pub type Test = (&'static str, fn());

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(status) = rig::role(&args) {
        std::process::exit(status);
    }
    // What keepd is started with ignored, services must not be.
    for signal in [signal::SIGQUIT, signal::SIGUSR1, signal::SIGCONT] {
        signal::ignore(signal);
    }
    let wanted: Vec<&String> = args[1..].iter().filter(|a| !a.starts_with('-')).collect();
    let all = [
        steps::TESTS,
        identity::TESTS,
        sandbox::TESTS,
        provision::TESTS,
        inject::TESTS,
        attack::TESTS,
        trees::TESTS,
        hands::TESTS,
        ends::TESTS,
    ]
    .concat();
    let given = |flag: &str| args.iter().any(|a| a == flag);
    if given("--list") {
        if given("--ignored") {
            // None is.
            return;
        }
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let mut failed = Vec::new();
    let mut ran = 0;
    for (name, test) in all {
        let named =
            |w: &&String| if given("--exact") { name == w.as_str() } else { name.contains(w.as_str()) };
        if !wanted.is_empty() && !wanted.iter().any(named) {
            continue;
        }
        ran += 1;
        let passed = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    rig::clean_up();
    let (word, bad) = (if failed.is_empty() { "ok" } else { "FAILED" }, failed.len());
    println!(
        "\ntest result: {word}. {} passed; {bad} failed; 0 ignored; 0 measured; 0 filtered out",
        ran - bad
    );
    std::process::exit(i32::from(!failed.is_empty()) * 101);
}
