//! The machine under test: seeded worlds, every way through small worlds, and the stories of other supervisors.
//!
//! `seeded_worlds` runs whole hosts (random plans, wishes, crashes, deaths of the manager between any two
//! packets, late and doubled news) against `oracle`, which holds after every turn: one run at a time and none
//! over a live one; signals only to runs that are held; one true exit record per run; nothing unwanted is ever
//! launched; whoever is not up has a reason and a way on; backoff, breaker and the host's budget; every stop
//! ends; order at start and at stop; an apply touches only what differs; a new manager is where the last one
//! was. `KEEPD_SIM_STEPS=1000000 cargo test --release --test machine seeded` takes seconds; a failure names its
//! seed, `KEEPD_SIM_SEED=n` replays it and `KEEPD_SIM_TRACE=1` tells the tale.
//!
//! The tests are tested: each of these mistakes was planted in the machine and caught, by the worlds (w), the
//! walk (e) or a story (s). Plant them again when the worlds change.
//!
//! - w e: facts of any run are believed; a run is launched while the last one has leftovers; an exit that is
//!   told twice is judged twice; an end during a stop counts as a failure
//! - w s: SIGKILL comes before the stop timeout; backoff is left out; the delay does not grow; the budget is
//!   ignored; a launch does not wait for dependencies, nor for order-only targets; dependents are not stopped
//!   first; what is bound to a crashed service runs on; start slots are not counted; a freed slot wakes nobody;
//!   an apply replaces what did not change; an apply calls a shutdown off; a new manager acts before it has
//!   heard everything; the breaker never opens
//! - w e s: SIGKILL never comes; a failed launch is ignored; a stopped service restarts; each start resets the
//!   breaker
//! - w: order-only dependents are not waited for at a stop; a late `Emptied` frees a run whose main process
//!   lives; a new manager forgets what was spent of the budget; tickets of what is blocked are never answered
//! - e: a new manager forgets a pending restart

#![allow(unreachable_pub, reason = "modules of one test")]
#![allow(clippy::unwrap_used, clippy::too_many_arguments, clippy::single_match)]

#[path = "machine/kernel.rs"]
mod kernel;
#[path = "machine/oneshot.rs"]
mod oneshot;
#[path = "machine/oracle.rs"]
mod oracle;
#[path = "machine/plans.rs"]
mod plans;
#[path = "machine/ready.rs"]
mod ready;
#[path = "machine/stories.rs"]
mod stories;
#[path = "machine/walk.rs"]
mod walk;
#[path = "machine/watch.rs"]
mod watch;
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
