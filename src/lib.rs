//! keepd: a process supervisor for bare-metal Linux hosts.
//!
//! One binary, four roles: the **keeper** (root, one thread, holds every service), its **launchers** (root, make
//! the keeper's children), the **loader** (root, short-lived, text to checked plan) and the **manager** (decides,
//! keeps logs, serves the API).
//! `docs/architecture.md` is the map; this is its table of rooms. A room may import only what its row says;
//! `tests/tidy.rs` holds the table.
//!
//! | room | for | may use |
//! |---|---|---|
//! | [`plan`] | WHAT should run: immutable, checked, no I/O | - |
//! | [`wire`] | the types of the HTTP API and of the exec socket | - |
//! | [`sys`] | TOUCHES the kernel; the only unsafe code | - |
//! | [`config`] | TEXT to plan, every error gathered | plan, sys |
//! | [`machine`] | DECIDES: pure, time is an argument | plan |
//! | [`notify`] | sd_notify, upwards | sys |
//! | [`keeper`] | HOLDS processes, pipes and exits | plan, wire, sys, notify |
//! | [`probe`] | ASKS services how they are | plan, sys |
//! | [`logs`] | KEEPS output: pump, rotation, reading | plan, sys |
//! | [`manager`] | ACTS: owns the machine, performs its effects | machine, plan, logs, probe, keeper, wire, sys |
//! | [`api`] | HTTP over the unix socket | wire, plan, manager, sys |
//! | [`ctl`] | the client | wire, config, plan, logs, sys |
//! | [`daemon`] | roles, arguments, start-up | all but ctl |

pub mod api;
pub mod config;
pub mod ctl;
pub mod daemon;
pub mod keeper;
pub mod logs;
pub mod machine;
pub mod manager;
pub mod notify;
pub mod plan;
pub mod probe;
#[allow(unsafe_code)]
pub mod sys;
pub mod wire;
