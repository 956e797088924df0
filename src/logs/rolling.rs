//! The daemon's own log as a file with the same rotation: `keepd.log`, and `keepd-2026-....000001.log` beside
//! it. What cannot be written is dropped and counted: the daemon never waits for, or fails by, its own log.

use super::{Housekeeper, place::Place, rotate::Limits, store::Store};
use std::{
    io::{self, Write},
    path::Path,
};

/// A writer that takes whole records: one call of `write` is never split over two files, nor half written.
#[derive(Debug)]
pub struct RollingFile {
    store: Store,
    dropped: u64,
}

impl RollingFile {
    /// `path` is the current file; it is made by the first write.
    pub fn new(path: &Path, limits: Limits, housekeeper: &Housekeeper) -> io::Result<RollingFile> {
        let place = Place::file(path).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(RollingFile { store: Store::new(place, limits, housekeeper), dropped: 0 })
    }

    fn record(&mut self, record: &[u8]) -> io::Result<()> {
        let open = self.store.ready()?;
        if open.full || open.size > 0 && open.size + record.len() as u64 > open.limit {
            self.store.rotate()?;
        }
        let open = self.store.ready()?;
        if self.dropped > 0 {
            open.append(format!("keepd: dropped {} log records here\n", self.dropped).as_bytes())?;
            self.dropped = 0;
        }
        open.append(record)
    }
}

impl Write for RollingFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.record(record).is_err() {
            self.dropped += 1;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Rotate;
    use std::fs;

    fn limits(max_size: u64) -> Limits {
        Limits { max_size, rotate: Rotate::Off, keep: 2, keep_for: None, max_total: None, compress: false }
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn records_stay_whole_and_old_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut file =
            RollingFile::new(&dir.path().join("keepd.log"), limits(100), &Housekeeper::default()).unwrap();
        for n in 0..50 {
            let record = format!("record {n} {}\n", "-".repeat(n % 40));
            file.write_all(record.as_bytes()).unwrap();
        }
        // Old ones are removed behind our back.
        while names(dir.path()).len() > 3 {
            std::thread::yield_now();
        }
        let names = names(dir.path());
        assert!(names[0].starts_with("keepd-20") && names[2] == "keepd.log", "{names:?}");
        let mut next = None;
        for name in names {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text.len() <= 100 && text.ends_with('\n'), "{text:?}");
            for line in text.lines() {
                let number: u32 = line.split(' ').nth(1).unwrap().parse().unwrap();
                assert_eq!(number, *next.get_or_insert(number));
                next = Some(number + 1);
            }
        }
        assert_eq!(next, Some(50));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/keepd.log");
        fs::write(dir.path().join("sub"), "in the way").unwrap();
        let mut file = RollingFile::new(&path, limits(1000), &Housekeeper::default()).unwrap();
        file.write_all(b"lost\n").unwrap();
        file.write_all(b"lost too\n").unwrap();
        fs::remove_file(dir.path().join("sub")).unwrap();
        file.write_all(b"kept\n").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "keepd: dropped 2 log records here\nkept\n");
    }
}
