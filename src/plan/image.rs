//! A plan as bytes, for a sealed memfd that keeper, launchers and manager all map.
//!
//! Layout: magic, then little-endian u32: format, number of services; then per part (daemon, warnings, each
//! service, the hooks) offset, length and marks, each a u32; then the parts as JSON.
//! A launcher reads just the part of what it
//! launches, and the keeper, which is to decode no service, no more of one than its marks.
//! No file is touched here.

use super::{
    DaemonSpec, LaunchSpec, Name, Plan, Resources, ServiceSpec,
    hook::{self, Hook},
};
use serde::de::DeserializeOwned;

const MAGIC: &[u8; 8] = b"keepplan";
/// The format written by this version.
pub const FORMAT: u32 = 2;
const HEAD: usize = 16;
/// Bytes of an entry of the table of parts.
const ENTRY: usize = 12;
/// Mark of a service: see [`Image::is_restricted`].
const RESTRICTED: u32 = 1;

/// What is wrong with the bytes of a plan.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a plan at all, or cut short.
    #[error("this is not a plan image")]
    NotAPlan,
    /// Written by another version.
    #[error("the plan image has format {0}, this version reads format {FORMAT}")]
    Format(u32),
    /// A part does not decode.
    #[error("the plan image is damaged: {0}")]
    Damaged(String),
}

/// Encodes a plan.
pub fn encode(plan: &Plan) -> Result<Vec<u8>, ImageError> {
    let json = |e: serde_json::Error| ImageError::Damaged(e.to_string());
    let mut parts = vec![(serde_json::to_vec(&plan.daemon).map_err(json)?, 0)];
    parts.push((serde_json::to_vec(&plan.warnings).map_err(json)?, 0));
    for s in &plan.services {
        let marks = if s.launch.is_restricted() { RESTRICTED } else { 0 };
        parts.push((serde_json::to_vec(s).map_err(json)?, marks));
    }
    parts.push((serde_json::to_vec(&plan.hooks).map_err(json)?, 0));
    let too_large = |_| ImageError::Damaged("larger than 4 GiB".into());
    let mut out = Vec::from(*MAGIC);
    out.extend(FORMAT.to_le_bytes());
    out.extend(u32::try_from(plan.services.len()).map_err(too_large)?.to_le_bytes());
    let mut at = HEAD + parts.len() * ENTRY;
    for (part, marks) in &parts {
        out.extend(u32::try_from(at).map_err(too_large)?.to_le_bytes());
        out.extend(u32::try_from(part.len()).map_err(too_large)?.to_le_bytes());
        out.extend(marks.to_le_bytes());
        at += part.len();
    }
    parts.iter().for_each(|(part, _)| out.extend_from_slice(part));
    Ok(out)
}

/// What a service is launched with.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Launched {
    pub name: Name,
    pub launch: LaunchSpec,
    pub resources: Resources,
}

/// A view of an encoded plan.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    bytes: &'a [u8],
    services: u32,
}

impl<'a> Image<'a> {
    /// Checks the head of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Result<Image<'a>, ImageError> {
        if bytes.get(..8) != Some(MAGIC) {
            return Err(ImageError::NotAPlan);
        }
        let format = word(bytes, 8)?;
        if format != FORMAT {
            return Err(ImageError::Format(format));
        }
        Ok(Image { bytes, services: word(bytes, 12)? })
    }

    /// Number of services.
    pub fn len(&self) -> u32 {
        self.services
    }

    /// True for a plan without services.
    pub fn is_empty(&self) -> bool {
        self.services == 0
    }

    /// The daemon's settings.
    pub fn daemon(&self) -> Result<DaemonSpec, ImageError> {
        self.part(0)
    }

    /// The service at this index of [`Plan::services`].
    pub fn service(&self, index: u32) -> Result<ServiceSpec, ImageError> {
        self.check(index)?;
        self.part(index as usize + 2)
    }

    /// What it is to be launched with, and nothing else of it.
    pub fn launch(&self, index: u32) -> Result<Launched, ImageError> {
        if index & hook::ENTRY != 0 {
            return self.hook(index & !hook::ENTRY);
        }
        self.check(index)?;
        self.part(index as usize + 2)
    }

    /// The command of a hook.
    fn hook(&self, index: u32) -> Result<Launched, ImageError> {
        let exec = self.hooks()?.into_iter().nth(index as usize).and_then(|hook| hook.exec);
        let exec = exec.ok_or_else(|| ImageError::Damaged(format!("there is no hook {index}")))?;
        Ok(Launched { name: exec.name, launch: exec.launch, resources: exec.resources })
    }

    fn hooks(&self) -> Result<Vec<Hook>, ImageError> {
        self.part(self.services as usize + 2)
    }

    fn check(&self, index: u32) -> Result<(), ImageError> {
        if index < self.services {
            return Ok(());
        }
        Err(ImageError::Damaged(format!("there is no entry {index}")))
    }

    /// Of the service at this index, without decoding it: [`LaunchSpec::is_restricted`].
    ///
    /// [`LaunchSpec::is_restricted`]: super::LaunchSpec::is_restricted
    pub fn is_restricted(&self, index: u32) -> Result<bool, ImageError> {
        self.check(index)?;
        Ok(word(self.bytes, HEAD + (index as usize + 2) * ENTRY + 8)? & RESTRICTED != 0)
    }

    /// The whole plan.
    pub fn plan(&self) -> Result<Plan, ImageError> {
        let services = (0..self.services).map(|i| self.service(i)).collect::<Result<_, _>>()?;
        Ok(Plan { daemon: self.daemon()?, services, hooks: self.hooks()?, warnings: self.part(1)? })
    }

    fn part<T: DeserializeOwned>(&self, n: usize) -> Result<T, ImageError> {
        let entry = HEAD + n * ENTRY;
        let (at, len) = (word(self.bytes, entry)? as usize, word(self.bytes, entry + 4)? as usize);
        let bytes =
            at.checked_add(len).and_then(|end| self.bytes.get(at..end)).ok_or(ImageError::NotAPlan)?;
        serde_json::from_slice(bytes).map_err(|e| ImageError::Damaged(e.to_string()))
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, ImageError> {
    let b = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(ImageError::NotAPlan)?;
    Ok(u32::from_le_bytes(b))
}
