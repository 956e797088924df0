//! What a line of a table needs of each service: `GET /v1/services?brief=true`. A list of a thousand is not worth all
//! that is known of each, neither to write nor to read; so texts are borrowed on both sides, and empty ones left out.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One service; each field is that of [`super::Service`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Brief<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub service: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub description: Cow<'a, str>,
    #[serde(borrow)]
    pub state: Cow<'a, str>,
    pub ready: bool,
    #[serde(borrow, skip_serializing_if = "str::is_empty")]
    pub reason: Cow<'a, str>,
    pub pid: Option<u32>,
    pub uptime_ms: Option<u64>,
    pub restarts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_start_in_ms: Option<u64>,
    #[serde(borrow)]
    pub log: BriefLog<'a>,
}

/// Where its output is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BriefLog<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub file: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub stderr_file: Option<Cow<'a, str>>,
}

/// The list.
#[derive(Debug, Default, Deserialize)]
pub struct Briefs<'a> {
    #[serde(borrow)]
    pub services: Vec<Brief<'a>>,
}
