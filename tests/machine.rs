//! The machine in simulated worlds.

#![allow(unreachable_pub, reason = "modules of one test")]
#![allow(clippy::unwrap_used, clippy::too_many_arguments, clippy::single_match)]

#[path = "machine/kernel.rs"]
mod kernel;
#[path = "machine/oracle.rs"]
mod oracle;
#[path = "machine/plans.rs"]
mod plans;
#[path = "machine/stories.rs"]
mod stories;
#[path = "machine/walk.rs"]
mod walk;
#[path = "machine/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Turns in one world.
const TURNS: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|v| v.parse().unwrap_or_else(|_| panic!("{name}={v} is no number")))
}

/// `KEEPD_SIM_STEPS` turns in all (default 100,000), or the one world of `KEEPD_SIM_SEED`.
#[test]
fn seeded_worlds() {
    if let Some(seed) = number("KEEPD_SIM_SEED") {
        return world::World::new(seed).live(TURNS);
    }
    let steps = number("KEEPD_SIM_STEPS").unwrap_or(100_000);
    let (mut done, mut seed) = (0, number("KEEPD_SIM_FIRST").unwrap_or(0));
    while done < steps {
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut world = world::World::new(seed);
            world.live(TURNS);
            world.steps
        }));
        match lived {
            Ok(n) => done += n.max(1),
            Err(e) => {
                eprintln!("replay with KEEPD_SIM_SEED={seed}");
                std::panic::resume_unwind(e);
            }
        }
        seed += 1;
    }
}
