//! What is made ready for a service before it is born, and what of its program is checked.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The keys `runtime-dirs`, `state-dirs`, `credentials` and `verify` of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// There from the start of a run to its end.
    pub runtime_dirs: Vec<Place>,
    /// There from the first start on.
    pub state_dirs: Vec<Place>,
    /// Files that the service gets to read, and nobody else does.
    pub credentials: Option<Credentials>,
    /// What the program must be.
    pub verify: Option<Verify>,
}

impl Provision {
    /// Most services ask for nothing.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Provision::default()
    }
}

/// A folder of a service's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// What it is below: there already, and nobody's but root's.
    pub base: PathBuf,
    /// Relative, without `.` and `..`.
    pub name: PathBuf,
}

impl Place {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.base.join(&self.name)
    }
}

/// Files that only this service sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Where the service finds them: on the host a folder that stays empty.
    pub at: PathBuf,
    /// What is read at each start, by the name that the service finds it under; at least one.
    pub files: Vec<(String, PathBuf)>,
}

/// `verify`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// 64 hexadecimal digits in lower case.
    Sha256(String),
    /// A public key, in base64, of who signed it with minisign.
    MinisignKey(String),
}
