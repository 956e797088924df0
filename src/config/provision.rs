//! `runtime-dirs`, `state-dirs`, `credentials` and `verify`: what they come to for one service, and which of them
//! would be in each other's way.

#![forbid(unsafe_code)]

use super::{
    diagnostic::{At, Problems},
    service::{Instance, Service},
};
use crate::plan::{
    Credentials, Identity, Mode, Place, Plan, Provision, ReadOnly, Sandbox, ServiceSpec, Verify,
};
use std::path::{Component, Path, PathBuf};

/// As long as a credential's name may be.
const NAME_MAX: usize = 255;

impl Instance<'_, '_> {
    pub(super) fn provision(&mut self, identity: Option<&Identity>) -> Provision {
        let beside = |own: &Path| own.parent().unwrap_or(Path::new("/")).to_owned();
        let (run, state) = (beside(&self.context.runtime_dir), beside(&self.context.state_dir));
        Provision {
            runtime_dirs: self.folders("runtime-dirs", &run),
            state_dirs: self.folders("state-dirs", &state),
            credentials: self.credentials(identity),
            verify: self.verify(),
        }
    }

    fn folders(&mut self, key: &'static str, base: &Path) -> Vec<Place> {
        let mut out: Vec<Place> = Vec::new();
        for item in self.service.settings.items(key) {
            let text = self.expand(&item.text, item.at);
            let place = Place { base: base.to_owned(), name: PathBuf::from(&text) };
            if let Err(why) = folder_name(&text) {
                let text = text.escape_debug();
                self.problems.error(item.at, format!("`{key}` cannot name \"{text}\": {why}"));
            } else if let Some(own) = self.keepds_own(&place.path()) {
                let message = format!("`{key}` cannot name \"{text}\": keepd's own {own} is there");
                self.problems.error(item.at, message);
            } else if !out.contains(&place) {
                out.push(place);
            }
        }
        out
    }

    fn keepds_own(&self, path: &Path) -> Option<&'static str> {
        let (c, overlap) = (self.context, |own: &Path| own.starts_with(path) || path.starts_with(own));
        let all = [("runtime-dir", &c.runtime_dir), ("state-dir", &c.state_dir), ("log-dir", &c.log_dir)];
        all.into_iter().find(|(_, own)| overlap(own)).map(|(key, _)| key)
    }

    fn credentials(&mut self, identity: Option<&Identity>) -> Option<Credentials> {
        let s = &self.service.settings;
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        for (name, item) in s.map("credentials") {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if name.starts_with('.') || name.len() > NAME_MAX || !name.chars().all(plain) {
                let message = format!(
                    "`credentials` cannot have the name \"{}\": it must be of A-Z, a-z, 0-9, `.`, `_` and `-`, and \
                     not begin with a dot",
                    name.escape_debug()
                );
                self.problems.error(item.at, message);
                continue;
            }
            let text = self.expand(&item.text, item.at);
            if text.is_empty() {
                self.problems.error(item.at, format!("`credentials.{name}` names no file"));
            }
            // A stronger layer's file is read instead.
            files.retain(|(known, _)| known != name);
            files.push((name.clone(), self.context.path(&text, item.at)));
        }
        if files.is_empty() {
            return None;
        }
        if identity.is_none() && self.context.options.mode == Mode::User {
            let at = s.written(&["credentials"]).unwrap_or(self.service.at);
            let message = "`credentials` cannot be set here: it takes a keepd that root started";
            self.problems.error(at, message);
        }
        files.sort_unstable();
        Some(Credentials { at: self.context.runtime_dir.join("credentials"), files })
    }

    fn verify(&mut self) -> Option<Verify> {
        let s = &self.service.settings;
        let (sha256, key) = (s.text("verify.sha256"), s.text("verify.minisign-key"));
        let (_, at) = sha256.or(key)?;
        if let (Some(_), Some((_, at))) = (sha256, key) {
            let message =
                "`verify.sha256` and `verify.minisign-key` cannot both be written: the one or the other";
            self.problems.error(at, message);
        }
        if s.items("command").first().is_some_and(|program| !program.text.contains('/')) {
            let message =
                "`verify` needs a `command` that begins with a path, not with a name to be searched in PATH";
            self.problems.error(at, message);
        }
        if let Some((text, at)) = sha256 {
            if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                let message = "`verify.sha256` must be 64 hexadecimal digits, as sha256sum prints them";
                self.problems.error(at, message);
            }
            return Some(Verify::Sha256(text.to_ascii_lowercase()));
        }
        let (text, at) = key?;
        if minisign_verify::PublicKey::from_base64(text).is_err() {
            let message =
                "`verify.minisign-key` must be a public key in base64, the second line of minisign.pub";
            self.problems.error(at, message);
        }
        Some(Verify::MinisignKey(text.to_owned()))
    }
}

/// The error is a clause that can follow a colon.
fn folder_name(text: &str) -> Result<(), &'static str> {
    let path = Path::new(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-@/".contains(c);
    if text.is_empty() {
        Err("it is empty")
    } else if path.has_root() {
        Err("it must be relative: it is made beside keepd's own folder")
    } else if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        Err("it must not contain `.` or `..`")
    } else if !text.chars().all(plain) {
        Err("it must be of A-Z, a-z, 0-9, `.`, `_`, `-`, `@` and `/`")
    } else {
        Ok(())
    }
}

/// The variables by which a service finds what is made ready for it.
pub(super) fn variables(provision: &Provision) -> Vec<(&'static str, String)> {
    let list = |places: &[Place]| {
        let all: Vec<String> = places.iter().map(|p| p.path().to_string_lossy().into_owned()).collect();
        all.join(":")
    };
    let mut out = Vec::new();
    for (name, places) in
        [("RUNTIME_DIRECTORY", &provision.runtime_dirs), ("STATE_DIRECTORY", &provision.state_dirs)]
    {
        if !places.is_empty() {
            out.push((name, list(places)));
        }
    }
    if let Some(credentials) = &provision.credentials {
        out.push(("CREDENTIALS_DIRECTORY", credentials.at.to_string_lossy().into_owned()));
    }
    out
}

/// Its own folders it can write to, whatever else is read-only.
pub(super) fn open_to(provision: &Provision, sandbox: &mut Sandbox) {
    if sandbox.read_only == ReadOnly::Strict {
        sandbox.writable.extend(folders(provision).map(Place::path));
        sandbox.writable.sort_unstable();
        sandbox.writable.dedup();
    }
}

fn folders(provision: &Provision) -> impl Iterator<Item = &Place> {
    provision.runtime_dirs.iter().chain(&provision.state_dirs)
}

/// Folders of which one is in another, or which two services would take from each other.
pub(super) fn apart(plan: &Plan, services: &[Service<'_>], problems: &mut Problems) {
    let mut all: Vec<(PathBuf, &'static str, &ServiceSpec)> = Vec::new();
    for spec in &plan.services {
        let Provision { runtime_dirs, state_dirs, .. } = &spec.launch.provision;
        for (key, places) in [("runtime-dirs", runtime_dirs), ("state-dirs", state_dirs)] {
            all.extend(places.iter().map(|place| (place.path(), key, spec)));
        }
    }
    all.sort_by(|a, b| (&a.0, &a.2.name).cmp(&(&b.0, &b.2.name)));
    // By parts, so that what is in a folder follows it.
    for pair in all.windows(2) {
        let [(outer, outer_key, one), (inner, key, other)] = pair else { continue };
        let shared = outer == inner && outer_key == key && *key == "state-dirs";
        if !inner.starts_with(outer) || shared && one.launch.identity == other.launch.identity {
            continue;
        }
        let why = if shared {
            format!("`{}` has it too, as another user", one.name)
        } else if outer == inner {
            format!("`{}` has it too, and it would go with the end of either", one.name)
        } else {
            format!("it lies in {}, which is a folder of `{}`", outer.display(), one.name)
        };
        let at = place(services, other, key);
        problems.error(at, format!("`{key}` of `{}` cannot name {}: {why}", other.name, inner.display()));
    }
}

/// Where the key stands.
fn place(services: &[Service<'_>], spec: &ServiceSpec, key: &'static str) -> At {
    let base = spec.name.as_str().split('@').next().unwrap_or_default();
    let service = services.iter().find(|s| s.name == base);
    service.map_or(At::BUILT_IN, |s| s.settings.written(&[key]).unwrap_or(s.at))
}
