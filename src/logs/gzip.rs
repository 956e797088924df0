//! Compressing rotated files. A file has its final name only when it is whole and on the disk, and its
//! original goes only after that; what a kill leaves in between is told by `history`. An original that goes
//! meanwhile, because it is pruned, takes its compressed form along.

use super::place::Place;
use crate::sys::folder::Folder;
use flate2::{Compression, GzBuilder};
use std::{
    collections::BTreeSet,
    fs::FileTimes,
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
};

/// So much is read at once.
const BLOCK: usize = 256 * 1024;

/// Compresses these rotated files, one after the other.
pub(super) fn compress(place: &Place, names: &BTreeSet<String>) -> io::Result<()> {
    let folder = place.open()?;
    names.iter().try_for_each(|name| match one(&folder, name) {
        // It was pruned before we came to it, or while we were at it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    })
}

fn one(folder: &Folder, name: &str) -> io::Result<()> {
    let (whole, partial) = (format!("{name}.gz"), format!("{name}.gz.tmp"));
    let mut source = folder.read_file(name)?;
    let facts = source.metadata()?;
    match folder.remove(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let written = (|| {
        let file = folder.create_file(&partial)?;
        let seconds = u32::try_from(facts.mtime()).unwrap_or(0);
        let mut encoder = GzBuilder::new().mtime(seconds).write(&file, Compression::default());
        let mut block = vec![0; BLOCK];
        loop {
            if source.metadata()?.nlink() == 0 {
                // Pruned meanwhile.
                return Err(io::ErrorKind::NotFound.into());
            }
            match source.read(&mut block)? {
                0 => break,
                n => encoder.write_all(&block[..n])?,
            }
        }
        encoder.finish()?;
        file.set_permissions(std::fs::Permissions::from_mode(facts.mode() & 0o777))?;
        // Its age is that of its lines.
        file.set_times(FileTimes::new().set_modified(facts.modified()?))?;
        file.sync_all()?;
        folder.rename(&partial, &whole)
    })();
    if let Err(e) = written {
        // Or the next round removes it.
        let _ = folder.remove(&partial);
        return Err(e);
    }
    // The new name is on the disk before the old one goes.
    folder.sync()?;
    match folder.facts(name) {
        Ok(now) if now.id == (facts.dev(), facts.ino()) => folder.remove(name),
        // Somebody put another one there; that is theirs.
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => folder.remove(&whole),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::fs;

    #[test]
    fn a_file_is_replaced_by_itself_compressed_with_its_time_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let text = "a line like any other\n".repeat(50_000);
        let path = dir.path().join("x.log");
        fs::write(&path, &text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let before = fs::metadata(&path).unwrap();
        fs::write(dir.path().join("x.log.gz.tmp"), "of a kill").unwrap();
        compress(&Place::of(dir.path(), false), &BTreeSet::from(["x.log".into()])).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["x.log.gz"]);
        let path = dir.path().join("x.log.gz");
        let after = fs::metadata(&path).unwrap();
        assert_eq!((after.mode(), after.mtime()), (before.mode(), before.mtime()));
        assert!(after.len() < before.len() / 20);
        let mut back = String::new();
        GzDecoder::new(fs::File::open(&path).unwrap()).read_to_string(&mut back).unwrap();
        assert!(back == text);
    }

    #[test]
    fn what_cannot_be_compressed_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "canary").unwrap();
        let logs = dir.path().join("logs");
        fs::create_dir(&logs).unwrap();
        std::os::unix::fs::symlink(&outside, logs.join("link.log")).unwrap();
        fs::write(logs.join("taken.log"), "text").unwrap();
        fs::write(logs.join("taken.log.gz"), "not ours").unwrap();
        compress(&Place::of(&logs, false), &BTreeSet::from(["missing.log".into()])).unwrap();
        for name in ["link.log", "taken.log"] {
            assert!(compress(&Place::of(&logs, false), &BTreeSet::from([name.into()])).is_err(), "{name}");
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "canary");
        assert_eq!(fs::read_to_string(logs.join("taken.log")).unwrap(), "text");
        assert_eq!(fs::read_to_string(logs.join("taken.log.gz")).unwrap(), "not ours");
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 3);
    }
}
