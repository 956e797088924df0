//! Where the last so many lines begin: from the end backwards, file by file and block by block, so that neither the
//! length of a log nor that of a line costs memory. Compressed files are streamed once.

use super::{
    files::{Place, Source, list},
    reader::{Open, Reader, current},
};
use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt};

const BLOCK: usize = 64 * 1024;

/// Begins with the last `lines` lines of the log; an unfinished one counts.
pub(super) fn last_lines(place: Place, lines: u64) -> io::Result<Reader> {
    let (mut left, mut last) = (lines, true);
    let found = newest_first(&place, 0, |open| {
        let position = match open.source.file() {
            Some(file) => backwards(file, &mut left, &mut last)?,
            None => through(&mut open.source, &mut left, &mut last)?,
        };
        Ok(position)
    })?;
    begin(place, found)
}

/// Opens a log where [`newest_first`] ended.
pub(super) fn begin(place: Place, found: Option<(Open, Option<u64>)>) -> io::Result<Reader> {
    match found {
        None => Ok(Reader::behind(place, 0)),
        Some((open, None)) => Reader::to(place, open.sequence, 0),
        // It may have been rotated and removed meanwhile; that we hold it open is enough.
        Some((mut open, Some(position))) if open.source.file().is_some() => {
            open.source.seek(position);
            Ok(Reader::with(place, open))
        }
        Some((open, Some(position))) => Reader::to(place, open.sequence, position),
    }
}

/// Shows `visit` the files from the newest back to number `first`, until it says at which place of one to begin.
/// Returns the file where it ended: that one, or the oldest.
pub(super) fn newest_first(
    place: &Place,
    first: u64,
    mut visit: impl FnMut(&mut Open) -> io::Result<Option<u64>>,
) -> io::Result<Option<(Open, Option<u64>)>> {
    let Some(folder) = place.open()? else { return Ok(None) };
    // Whatever is rotated while we look for the place is older than `current`, which is opened first.
    let current = current(&folder, 0)?;
    let end = current.as_ref().map_or(u64::MAX, |open| open.sequence);
    let mut oldest = None;
    if let Some(mut open) = current.filter(|open| open.sequence >= first) {
        let found = visit(&mut open)?;
        if found.is_some() {
            return Ok(Some((open, found)));
        }
        oldest = Some(open);
    }
    for rotated in list(&folder, first.saturating_sub(1))?.iter().rev().filter(|f| f.sequence < end) {
        // What was pruned a moment ago ends what there is.
        let Some(source) = rotated.open(&folder)? else { continue };
        let mut open = Open { source, sequence: rotated.sequence, rotated: true };
        let found = visit(&mut open)?;
        if found.is_some() {
            return Ok(Some((open, found)));
        }
        oldest = Some(open);
    }
    Ok(oldest.map(|open| (open, None)))
}

/// Where the last `left` lines of the file begin; `None`: before it, and `left` is what is still missing.
/// `last`: it is the end of everything, where a line end does not begin another line.
fn backwards(file: &File, left: &mut u64, last: &mut bool) -> io::Result<Option<u64>> {
    let mut block = vec![0; BLOCK];
    let mut end = file.metadata()?.len();
    if *left == 0 {
        return Ok(Some(end));
    }
    while end > 0 {
        let len = usize::try_from(end).unwrap_or(BLOCK).min(BLOCK);
        let begin = end - len as u64;
        file.read_exact_at(&mut block[..len], begin)?;
        for i in memchr::memrchr_iter(b'\n', &block[..len]) {
            if std::mem::take(last) && i + 1 == len {
                continue;
            }
            *left -= 1;
            if *left == 0 {
                return Ok(Some(begin + i as u64 + 1));
            }
        }
        *last = false;
        end = begin;
    }
    Ok(None)
}

/// As [`backwards`], of a file that can only be read from its beginning.
fn through(source: &mut Source, left: &mut u64, last: &mut bool) -> io::Result<Option<u64>> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX).saturating_add(1);
    let (mut begins, mut block, mut at) = (VecDeque::new(), vec![0; BLOCK], 0);
    // One that is damaged counts as far as it can be read.
    while let Ok(n @ 1..) = source.read(&mut block) {
        for i in memchr::memchr_iter(b'\n', &block[..n]) {
            begins.push_back(at + i as u64 + 1);
            if begins.len() > most {
                begins.pop_front();
            }
        }
        at += n as u64;
    }
    if at > 0 && std::mem::take(last) && begins.back() == Some(&at) {
        begins.pop_back();
    }
    let found = begins.len() as u64;
    if *left == 0 {
        return Ok(Some(at));
    }
    if found >= *left {
        return Ok(Some(begins[begins.len() - usize::try_from(*left).unwrap_or(0)]));
    }
    *left -= found;
    Ok(None)
}
