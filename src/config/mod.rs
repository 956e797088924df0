//! TEXT -> Plan: reads the files, gathers every error of every file, resolves users and fills in defaults.
//!
//! `source` finds and reads files, `document` checks one file key by key against `schema`, `settings` layers
//! what several say, and `build` makes the plan of it. It starts nothing but
//! `getent`, and writes nothing.

#![forbid(unsafe_code)]

mod build;
mod checks;
mod daemon;
mod depends;
mod diagnostic;
mod document;
mod expand;
mod getent;
mod hooks;
mod identity;
mod lists;
mod options;
mod probes;
mod provision;
mod resources;
mod sandbox;
mod schema;
mod service;
mod settings;
mod single;
mod source;
mod users;
mod value;
mod words;

pub use diagnostic::{Diagnostic, Format, render_all};
pub use options::Options;
pub use schema::keys;
pub use single::takes;
pub use users::{Account, Databases};
pub use words::split_words;

use crate::plan::{Millis, Mode, Plan};
use diagnostic::{At, Problems};
use document::Document;
use source::Source;
use std::path::PathBuf;

const BUILT_IN: &str = include_str!("built_in.toml");

/// What every part of a plan may need to know.
struct Context<'a> {
    options: &'a Options,
    sources: &'a [Source],
    profile: Option<&'a str>,
    runtime_dir: PathBuf,
    state_dir: PathBuf,
    log_dir: PathBuf,
    shutdown_timeout: Millis,
}

impl Context<'_> {
    /// A path as written at some place: relative ones belong to that file's folder.
    fn path(&self, text: &str, at: At) -> PathBuf {
        // Through components, so that `./x` leaves no dot behind.
        self.sources[at.source as usize].dir.join(text).components().collect()
    }
}

/// Reads and checks a whole configuration. The errors are in the order of the files and of their lines;
/// there is at least one.
pub fn load(options: &Options) -> Result<Plan, Vec<Diagnostic>> {
    let mut problems = Problems::default();
    let sources = source::gather(options, BUILT_IN, &mut problems);
    let mut whole = problems.none();
    let documents: Vec<Document> = (0..sources.len())
        .map(|index| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            let (document, is_toml) = document::parse(index, &sources, &mut problems);
            whole &= is_toml;
            document
        })
        .collect();
    // Where a file could not be read, what the others say of it would be reported as unknown.
    let plan = whole.then(|| build::build(&documents, options, &sources, &mut problems));
    match plan {
        Some(mut plan) if problems.none() => {
            plan.warnings = problems.warnings(&sources);
            Ok(plan)
        }
        _ => Err(problems.diagnostics(&sources)),
    }
}

#[cfg(test)]
mod json_schema_tests;
