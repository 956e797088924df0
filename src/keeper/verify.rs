//! `verify`: whether a program is the one that its operator means. It is opened once, and the descriptor that was
//! read is the one that is executed.

#![forbid(unsafe_code)]

use super::step::{Failure, Step};
use crate::{
    plan::Verify,
    sys::{
        Errno, clock,
        fd::{self, Version},
        lease,
        trusted::{self, Reader},
    },
};
use minisign_verify::{PublicKey, Signature, StreamVerifier};
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// A change that is younger than this may be followed by another that leaves the same time behind.
const SETTLED_MS: u64 = 2_000;
/// More programs than that are not known by heart.
const KNOWN_MAX: usize = 256;
const SIGNATURE_MAX: u64 = 16 << 10;
const BUFFER: usize = 256 << 10;

/// The states of programs that were found to be what they must be, so that a crash loop does not read a large one
/// again each time. A write to a file gives it another change time, which nobody but root can set back.
#[derive(Debug, Default)]
pub(super) struct Known(RefCell<BTreeMap<Version, Verify>>);

impl Known {
    fn has(&self, version: &Version, wanted: &Verify) -> bool {
        self.0.borrow().get(version) == Some(wanted)
    }

    fn add(&self, version: Version, wanted: &Verify) {
        let mut known = self.0.borrow_mut();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(version, wanted.clone());
    }
}

/// The program, opened and found to be what it must be. Nobody can write to it while the descriptor is open, where
/// its file system has leases.
pub(super) fn program(
    path: &Path,
    wanted: &Verify,
    reader: Option<Reader<'_>>,
    known: &Known,
) -> Result<OwnedFd, Failure> {
    let object = || path.display().to_string();
    let call = |e| Failure::call(Step::Program, e, object());
    let ours = |why: &str| Failure::ours(Step::Program, object(), why);
    let file = trusted::open(path, reader).map_err(call)?;
    if !matches!(fd::kind(file.as_fd()).map_err(call)?, fd::Kind::Regular { .. }) {
        return Err(ours("it is not a regular file"));
    }
    lease::take(file.as_fd()).map_err(|e| match e {
        Errno::EAGAIN => ours("somebody has it open for writing"),
        e => call(e),
    })?;
    let version = Version::of(file.as_fd()).map_err(call)?;
    if known.has(&version, wanted) {
        return Ok(file);
    }
    let mut file = File::from(file);
    check(&mut file, path, wanted, reader).map_err(|why| ours(&why))?;
    if Version::of(file.as_fd()).map_err(call)? != version {
        return Err(ours("it was changed while it was read"));
    }
    let now = clock::wall_ms();
    if version.changed_ms() + SETTLED_MS < now {
        known.add(version, wanted);
    }
    Ok(file.into())
}

/// The error is a clause that can follow a colon.
fn check(file: &mut File, path: &Path, wanted: &Verify, reader: Option<Reader<'_>>) -> Result<(), String> {
    match wanted {
        Verify::Sha256(wanted) => {
            let mut hash = Sha256::new();
            read(file, |bytes| hash.update(bytes))?;
            let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
            match found == *wanted {
                true => Ok(()),
                false => Err(format!("its sha256 is {found}, not {wanted}")),
            }
        }
        Verify::MinisignKey(key) => {
            let key = PublicKey::from_base64(key).map_err(|e| format!("the public key is none: {e}"))?;
            let signature = signature(path, reader)?;
            let mut verifier = stream(&key, &signature)?;
            read(file, |bytes| verifier.update(bytes))?;
            verifier.finalize().map_err(|_| "its signature is not of this program and this key".into())
        }
    }
}

fn signature(path: &Path, reader: Option<Reader<'_>>) -> Result<Signature, String> {
    let name = |path: &Path| {
        let mut name = OsString::from(path);
        name.push(".minisig");
        PathBuf::from(name)
    };
    let at = name(path);
    let failed = |why: String| format!("the signature {} cannot be read: {why}", at.display());
    let file = trusted::open(&at, reader).map_err(|e| failed(e.desc().into()))?;
    let mut text = String::new();
    File::from(file).take(SIGNATURE_MAX).read_to_string(&mut text).map_err(|e| failed(e.to_string()))?;
    Signature::decode(&text).map_err(|e| failed(e.to_string()))
}

fn stream<'k>(key: &'k PublicKey, signature: &'k Signature) -> Result<StreamVerifier<'k>, String> {
    key.verify_stream(signature).map_err(|e| match e {
        minisign_verify::Error::UnsupportedLegacyMode => {
            "its signature is of the old kind (sign with minisign 0.10 or later)".into()
        }
        _ => "its signature is of another key".into(),
    })
}

/// Reads all of it. A script is refused: what runs is its interpreter, which opens the file again by its name.
fn read(file: &mut File, mut each: impl FnMut(&[u8])) -> Result<(), String> {
    let mut buffer = vec![0; BUFFER];
    let mut first = true;
    loop {
        let n = file.read(&mut buffer).map_err(|e| format!("it cannot be read: {e}"))?;
        if std::mem::take(&mut first) && buffer[..n].starts_with(b"#!") {
            return Err(
                "it is a script, whose interpreter would open it again: only programs can be verified".into(),
            );
        }
        if n == 0 {
            return Ok(());
        }
        each(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The example of the minisign-verify crate: a key and its signature of the four bytes "test".
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
        wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";
    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn found(path: &Path, wanted: &Verify) -> Result<(), String> {
        program(path, wanted, None, &Known::default()).map(drop).map_err(|f| f.sentence())
    }

    #[test]
    fn a_hash_must_be_that_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, "test").unwrap();
        assert_eq!(found(&path, &Verify::Sha256(HASH.into())), Ok(()));
        fs::write(&path, "tent").unwrap();
        let why = found(&path, &Verify::Sha256(HASH.into())).unwrap_err();
        assert!(why.starts_with(&format!("cannot verify {}: its sha256 is ", path.display())), "{why}");
        assert!(why.ends_with(&format!(", not {HASH}")), "{why}");
    }

    #[test]
    fn a_signature_must_be_of_the_file_and_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let wanted = Verify::MinisignKey(KEY.into());
        fs::write(&path, "test").unwrap();
        assert!(
            found(&path, &wanted)
                .unwrap_err()
                .ends_with(".minisig cannot be read: No such file or directory")
        );
        fs::write(dir.path().join("program.minisig"), SIGNATURE).unwrap();
        assert_eq!(found(&path, &wanted), Ok(()));
        let other = Verify::MinisignKey("RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO4".into());
        assert!(found(&path, &other).is_err());
        fs::write(&path, "tent").unwrap();
        assert!(
            found(&path, &wanted).unwrap_err().ends_with("its signature is not of this program and this key")
        );
    }

    #[test]
    fn what_would_be_opened_again_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(found(&path, &Verify::Sha256(HASH.into())).unwrap_err().contains("it is a script"));
        assert!(
            found(dir.path(), &Verify::Sha256(HASH.into()))
                .unwrap_err()
                .ends_with("it is not a regular file")
        );
    }

    #[test]
    fn nobody_has_it_open_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        let mut writer = File::create(&path).unwrap();
        std::io::Write::write_all(&mut writer, b"test").unwrap();
        let why = found(&path, &Verify::Sha256(HASH.into())).unwrap_err();
        assert!(why.ends_with("somebody has it open for writing"), "{why}");
    }

    #[test]
    fn what_is_known_is_known_of_one_state_and_one_wish() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        fs::write(&path, "test").unwrap();
        let (known, wanted) = (Known::default(), Verify::Sha256(HASH.into()));
        let version = |path: &Path| Version::of(File::open(path).unwrap().as_fd()).unwrap();
        known.add(version(&path), &wanted);
        assert!(known.has(&version(&path), &wanted));
        assert!(!known.has(&version(&path), &Verify::Sha256("00".into())));
        let before = version(&path);
        while version(&path) == before {
            fs::write(&path, "tent").unwrap();
        }
        assert!(!known.has(&version(&path), &wanted));
        // Too young to be known.
        fs::write(&path, "test").unwrap();
        program(&path, &wanted, None, &known).unwrap();
        assert!(!known.has(&version(&path), &wanted));
    }
}
