//! Lines of several logs: order, choice, and what happens to files meanwhile.

use super::{super::marks, *};
use crate::logs::rotate::name;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::{fs, io::Write, path::Path};

const T: u64 = 1_795_219_200_000;

/// A log with these files, oldest first, each of lines `(second, text)` with a mark for each; the last is `current`.
fn write(dir: &Path, files: &[&[(u64, &str)]]) -> Place {
    fs::create_dir_all(dir).unwrap();
    let mut sidecar = Vec::new();
    for (n, lines) in files.iter().enumerate() {
        let (sequence, mut content) = (n as u64 + 1, Vec::new());
        for (second, text) in *lines {
            let wall_ms = T + second * 1000;
            sidecar.extend(marks::encode(marks::Mark { sequence, offset: content.len() as u64, wall_ms }));
            content.extend_from_slice(text.as_bytes());
            content.push(b'\n');
        }
        match n + 1 == files.len() {
            true => fs::write(dir.join("current"), content).unwrap(),
            // Every second one is compressed.
            false if n % 2 == 0 => {
                let file = fs::File::create(dir.join(name("", T, sequence) + ".gz")).unwrap();
                let mut packed = GzEncoder::new(file, Compression::fast());
                packed.write_all(&content).unwrap();
                packed.finish().unwrap();
            }
            false => fs::write(dir.join(name("", T, sequence)), content).unwrap(),
        }
    }
    fs::write(dir.join(marks::NAME), sidecar).unwrap();
    Place::stdout(dir)
}

fn next_lines(view: &mut View) -> Vec<(usize, Line)> {
    let mut lines = Vec::new();
    loop {
        match view.advance().unwrap() {
            Next::Line(log, line) => lines.push((log, line)),
            Next::Busy => {}
            Next::End => return lines,
        }
    }
}

fn texts(places: &[Place], query: &Query) -> Vec<String> {
    let mut view = View::open(places, query, false, &|| false).unwrap();
    let text = |(_, line): (usize, Line)| String::from_utf8(line.text).unwrap();
    next_lines(&mut view).into_iter().map(text).collect()
}

fn at(second: u64) -> Option<u64> {
    Some(T + second * 1000)
}

#[test]
fn several_logs_are_one_in_the_order_of_time() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(&dir.path().join("a"), &[&[(1, "a1"), (4, "a4")], &[(5, "a5")], &[(9, "a9")]]);
    let b = write(&dir.path().join("b"), &[&[(2, "b2")], &[(3, "b3"), (6, "b6")]]);
    let none = Place::stdout(&dir.path().join("c"));
    let all = texts(&[a.clone(), none, b], &Query::default());
    assert_eq!(all, ["a1", "b2", "b3", "a4", "a5", "b6", "a9"]);
    let one = texts(&[a], &Query { lines: Some(2), ..Query::default() });
    assert_eq!(one, ["a5", "a9"]);
}

#[test]
fn since_and_until_choose_over_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), &[&[(1, "one"), (2, "two")], &[(3, "three")], &[(4, "four"), (5, "five")]]);
    let all = ["one", "two", "three", "four", "five"];
    for since in 0..7 {
        for until in 0..7 {
            for lines in [None, Some(2)] {
                let query = Query { lines, since: at(since), until: at(until), grep: None };
                let wanted: Vec<_> =
                    (1..=5).filter(|s| (since..=until).contains(s)).map(|s| all[s as usize - 1]).collect();
                let wanted = &wanted[wanted.len() - wanted.len().min(lines.unwrap_or(9) as usize)..];
                assert_eq!(texts(std::slice::from_ref(&a), &query), wanted, "{since}..={until} {lines:?}");
            }
        }
    }
}

#[test]
fn a_clock_that_was_set_back_hides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = write(dir.path(), &[&[(100, "a"), (200, "b")], &[(110, "c"), (210, "d")], &[(120, "e")]]);
    let chosen = |since, until| {
        texts(std::slice::from_ref(&a), &Query { since: at(since), until: at(until), ..Query::default() })
    };
    assert_eq!(chosen(105, 130), ["c", "e"]);
    assert_eq!(chosen(190, 220), ["b", "d"]);
    assert_eq!(chosen(0, 999), ["a", "b", "c", "d", "e"]);
    // Shown in the order in which they were written.
    assert_eq!(texts(std::slice::from_ref(&a), &Query::default()), ["a", "b", "c", "d", "e"]);
}

#[test]
fn the_last_lines_that_match_are_found_in_old_files_too() {
    let dir = tempfile::tempdir().unwrap();
    let files: [&[(u64, &str)]; 4] =
        [&[(1, "hit 1"), (1, "miss")], &[(2, "hit 2")], &[(3, "miss"), (3, "hit 3")], &[(4, "miss")]];
    let a = write(dir.path(), &files);
    for (lines, wanted) in
        [(0, &[][..]), (1, &["hit 3"]), (2, &["hit 2", "hit 3"]), (3, &["hit 1", "hit 2", "hit 3"])]
    {
        let query = Query { lines: Some(lines), grep: Some(pattern("^h.t").unwrap()), ..Query::default() };
        assert_eq!(texts(std::slice::from_ref(&a), &query), wanted);
    }
    let query = Query { lines: Some(99), grep: Some(pattern("hit").unwrap()), ..Query::default() };
    assert_eq!(texts(&[a], &query).len(), 3);
}

#[test]
fn patterns_that_cost_too_much_are_refused() {
    assert!(pattern("(?i)error|warn").is_ok());
    assert_eq!(pattern("[a-z]{1000}{1000}").unwrap_err(), "it is too large; ask for less repetition");
    assert_eq!(pattern("(x").unwrap_err(), "unclosed group");
    assert!(pattern(&"(".repeat(4000)).is_err());
}

#[test]
fn lines_carry_their_own_time_where_it_can_be_true() {
    let dir = tempfile::tempdir().unwrap();
    let own = "2026-11-21T00:00:01.234Z own";
    let wrong = "1999-01-01T00:00:00Z replayed";
    let a = write(dir.path(), &[&[(1, own), (2, wrong), (3, "{\"time\":\"2026-11-21T00:00:03.5Z\"}")]]);
    let mut view = View::open(&[a], &Query::default(), false, &|| false).unwrap();
    let times: Vec<u64> = next_lines(&mut view).iter().map(|(_, l)| l.time_ms - T).collect();
    assert_eq!(times, [1234, 2000, 3500]);
}

#[test]
fn bytes_are_kept_and_long_lines_come_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let long = vec![0u8; 3 * 64 * 1024 + 5];
    let raw = [&b"\xff\x00\x1b[m\n\n"[..], &long, b"\nend"].concat();
    fs::write(dir.path().join("current"), &raw).unwrap();
    let mut view = View::open(&[Place::stdout(dir.path())], &Query::default(), false, &|| false).unwrap();
    let (mut back, mut pieces) = (Vec::new(), 0);
    for (_, line) in next_lines(&mut view) {
        assert!(line.text.len() <= 64 * 1024);
        back.extend_from_slice(&line.text);
        if line.partial {
            pieces += 1;
        } else {
            back.push(b'\n');
        }
    }
    assert_eq!(pieces, 4);
    assert!(back == raw);
}

#[test]
fn without_marks_names_and_files_tell_the_time() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name("", T, 1)), "old\n").unwrap();
    fs::write(dir.path().join("current"), "new\n").unwrap();
    let place = Place::stdout(dir.path());
    let mut view = View::open(std::slice::from_ref(&place), &Query::default(), false, &|| false).unwrap();
    let lines = next_lines(&mut view);
    assert_eq!(lines[0].1.time_ms, T);
    let written = fs::metadata(dir.path().join("current")).unwrap().modified().unwrap();
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(lines[1].1.time_ms.abs_diff(written) < 60_000);
    assert_eq!(texts(&[place], &Query { since: at(1), ..Query::default() }).last().unwrap(), "new");
}

#[test]
fn a_follower_gets_whole_lines_once_and_hears_of_what_was_pruned() {
    let dir = tempfile::tempdir().unwrap();
    let places =
        [write(&dir.path().join("a"), &[&[(1, "a1")]]), write(&dir.path().join("b"), &[&[(2, "b2")]])];
    let current = |log: &str| dir.path().join(log).join("current");
    let append = |log: &str, text: &str| {
        fs::File::options().append(true).open(current(log)).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let mut view = View::open(&places, &Query::default(), true, &|| false).unwrap();
    let mut seen = |grown: &[usize]| -> Vec<String> {
        grown.iter().for_each(|log| view.grown(*log));
        next_lines(&mut view).into_iter().map(|(_, l)| String::from_utf8(l.text).unwrap()).collect()
    };
    assert_eq!(seen(&[]), ["a1", "b2"]);
    append("a", "half");
    assert_eq!(seen(&[0, 1, 0]), [""; 0]);
    append("a", " whole\nmore");
    assert_eq!(seen(&[0]), ["half whole"]);
    append("a", "\n");
    fs::rename(current("a"), dir.path().join("a").join(name("", T, 1))).unwrap();
    fs::write(dir.path().join("a").join(name("", T, 5)), "five\n").unwrap();
    fs::write(current("a"), "six\n").unwrap();
    let note = "keepd: rotated files 2 to 4 were removed before they could be read";
    assert_eq!(seen(&[0]), ["more", note, "five", "six"]);
}

#[test]
fn nobody_searches_for_a_caller_that_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "nothing\n".repeat(20_000);
    fs::write(dir.path().join("current"), lines).unwrap();
    let query = Query { lines: Some(1), grep: Some(pattern("something").unwrap()), ..Query::default() };
    let asked = std::cell::Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > 2
    };
    let error = View::open(&[Place::stdout(dir.path())], &query, false, &stop).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
}

proptest! {
    #[test]
    fn a_merge_keeps_every_line_and_each_log_in_order(
        logs in prop::collection::vec(prop::collection::vec(0..50u64, 0..12), 1..5),
        cut in 1..5usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut places = Vec::new();
        for (n, seconds) in logs.iter().enumerate() {
            let texts: Vec<String> = (0..seconds.len()).map(|i| format!("{n} {i}")).collect();
            let lines: Vec<(u64, &str)> = seconds.iter().copied().zip(texts.iter().map(String::as_str)).collect();
            let files: Vec<_> = lines.chunks(cut).collect();
            places.push(write(&dir.path().join(n.to_string()), &files));
        }
        let mut view = View::open(&places, &Query::default(), false, &|| false).unwrap();
        let lines = next_lines(&mut view);
        prop_assert_eq!(lines.len(), logs.iter().map(Vec::len).sum::<usize>());
        for (n, seconds) in logs.iter().enumerate() {
            let own: Vec<_> = lines.iter().filter(|(log, _)| *log == n).collect();
            for (i, (_, line)) in own.iter().enumerate() {
                prop_assert_eq!(line.text.clone(), format!("{n} {i}").into_bytes());
                prop_assert_eq!(line.time_ms, T + seconds[i] * 1000);
            }
        }
        // Where no clock was set back, the whole is in order.
        if logs.iter().all(|s| s.is_sorted()) {
            prop_assert!(lines.is_sorted_by_key(|(_, line)| line.time_ms));
        }
    }
}
