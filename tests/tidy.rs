//! The house rules, held by a test: which room may use which, where unsafe code may live, what the pure rooms must
//! not name, how long a file may get. A rule that only people remember is not a rule.
//!
//! "Production lines" are those above a file's `#[cfg(test)] mod`; what is below may use what it likes.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

/// The rooms and what each may use, besides itself. `src/lib.rs` shows people the same table.
const ROOMS: &[(&str, &[&str])] = &[
    ("plan", &[]),
    ("wire", &[]),
    ("sys", &[]),
    ("config", &["plan", "sys"]),
    ("machine", &["plan"]),
    ("notify", &["sys"]),
    ("keeper", &["plan", "wire", "sys", "notify"]),
    ("probe", &["plan", "sys"]),
    ("logs", &["plan", "sys"]),
    ("manager", &["machine", "plan", "logs", "probe", "keeper", "wire", "sys"]),
    ("api", &["wire", "manager", "plan", "sys"]),
    ("ctl", &["wire", "config", "plan", "logs", "sys"]),
    (
        "daemon",
        &["plan", "wire", "sys", "config", "machine", "notify", "keeper", "probe", "logs", "manager", "api"],
    ),
];

/// Rooms in which time is an argument and nothing is done.
const PURE: &[&str] = &["plan", "machine"];
/// What they must not name: paths, and what lies below them.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
    "nix",
    "libc",
    "jiff",
];

const LONGEST: usize = 400;
const MEDIAN: usize = 200;
const WIDEST: usize = 120;

/// One source file.
struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
}

impl Source {
    /// `src/api/http.rs` belongs to `api`, `src/wire.rs` to `wire`; `lib.rs` and `bin/` to none.
    fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        let first = rest.split('/').next()?.trim_end_matches(".rs");
        (first != "bin" && first != "lib").then_some(first)
    }

    /// Files that hold tests only.
    fn is_test(&self) -> bool {
        let stem = Path::new(&self.path).file_stem().unwrap().to_str().unwrap();
        stem.ends_with("tests") || self.path.contains("/tests/") || self.path.starts_with("tests/")
    }

    /// The lines above the first `#[cfg(test)]` that stands before a module.
    fn production(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_gate = |i: usize| {
            lines[i].trim_start().starts_with("#[cfg(test)]")
                && lines[i..].iter().skip(1).find(|l| !l.trim_start().starts_with("#[")).is_some_and(|l| {
                    let l = l.trim_start();
                    l.starts_with("mod ") || l.starts_with("pub mod ") || l.starts_with("pub(crate) mod ")
                })
        };
        let end = (0..lines.len()).find(|&i| is_gate(i)).unwrap_or(lines.len());
        lines[..end].to_vec()
    }

    /// Production lines without comments, joined.
    fn code(&self) -> String {
        let lines: Vec<&str> = self.production().into_iter().map(without_comment).collect();
        lines.join("\n")
    }
}

/// The line up to a `//` that is not within a string (or part of a URL in one).
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    let bytes = line.as_bytes();
    for i in 0..bytes.len() {
        match bytes[i] {
            b'\\' if quoted => {}
            b'"' if i == 0 || (bytes[i - 1] != b'\\' && bytes[i - 1] != b'\'') => quoted = !quoted,
            b'/' if !quoted && bytes.get(i + 1) == Some(&b'/') => return &line[..i],
            _ => {}
        }
    }
    line
}

fn sources(folder: &str) -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push(Source { path: name, text: fs::read_to_string(&path).unwrap() });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(root, &root.join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no source files below {folder}");
    found
}

/// Every path in `code` that begins with `root::`, groups in braces expanded.
fn paths(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let start = format!("{root}::");
    for (at, _) in code.match_indices(&start) {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
            expand(&code[at + start.len()..], root, &mut found);
        }
    }
    found
}

/// Adds the paths of one use tree (`a::{b, c::d}`) to `found`; gives the rest of the text behind it.
fn expand<'a>(text: &'a str, prefix: &str, found: &mut BTreeSet<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if rest.is_empty() {
                return rest;
            }
            if let Some(rest) = rest.strip_prefix('}') {
                return rest;
            }
            let shorter = expand(rest, prefix, found);
            if shorter.len() == rest.len() {
                return rest; // no use tree: a macro or the like
            }
            rest = shorter;
        }
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(text.len());
    let path = format!("{prefix}::{}", &text[..end]);
    let rest = &text[end..];
    if let Some(below) = rest.strip_prefix("::")
        && below.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '{' || c == '*')
    {
        return expand(below, &path, found);
    }
    found.insert(path);
    let renamed = rest.trim_start().strip_prefix("as ");
    renamed.map_or(rest, |r| r.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
}

fn assert_none(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn the_table_in_lib_rs_is_this_one() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut shown = Vec::new();
    for row in lib.lines().filter_map(|l| l.strip_prefix("//! | [`")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[0].trim_end_matches("`]").to_owned();
        let mut may: Vec<String> = match cells[2] {
            "-" => Vec::new(),
            "all but ctl" => {
                ROOMS.iter().map(|r| r.0.to_owned()).filter(|r| *r != "ctl" && *r != name).collect()
            }
            list => list.split(", ").map(str::to_owned).collect(),
        };
        may.sort();
        shown.push((name, may));
    }
    let held: Vec<(String, Vec<String>)> = ROOMS
        .iter()
        .map(|(name, may)| {
            let mut may: Vec<String> = may.iter().map(|m| (*m).to_owned()).collect();
            may.sort();
            ((*name).to_owned(), may)
        })
        .collect();
    assert_eq!(shown, held, "src/lib.rs shows another table than the one that is held here");
}

#[test]
fn each_file_belongs_to_a_room_of_the_table() {
    let known: BTreeSet<&str> = ROOMS.iter().map(|r| r.0).collect();
    let all = sources("src");
    let strays = all.iter().filter(|s| s.room().is_some_and(|r| !known.contains(r)));
    assert_none(strays.map(|s| s.path.clone()).collect(), "files outside of the rooms of the table");
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let mut broken = Vec::new();
    for source in sources("src").iter().filter(|s| !s.is_test()) {
        let Some(room) = source.room() else { continue };
        let allowed = ROOMS.iter().find(|r| r.0 == room).map_or(&[][..], |r| r.1);
        for path in paths(&source.code(), "crate") {
            let used = path.split("::").nth(1).unwrap_or_default();
            if used != room && !allowed.contains(&used) {
                broken.push(format!("{}: {path}", source.path));
            }
        }
    }
    assert_none(broken, "uses that the table of rooms does not allow");
}

#[test]
fn the_programs_use_only_their_entry() {
    for (file, room) in [("src/bin/keepd.rs", "daemon"), ("src/bin/keepctl.rs", "ctl")] {
        let all = sources("src/bin");
        let source = all.iter().find(|s| s.path == file).unwrap();
        let used = paths(&source.code(), "keepd");
        let others: Vec<_> = used.into_iter().filter(|p| p.split("::").nth(1) != Some(room)).collect();
        assert_none(others, &format!("{file} is a few lines around `{room}`"));
    }
}

#[test]
fn unsafe_code_lives_in_sys_only() {
    let mut broken = Vec::new();
    for (room, _) in ROOMS.iter().filter(|r| r.0 != "sys") {
        let all = sources("src");
        let head = all
            .iter()
            .find(|s| s.path == format!("src/{room}.rs") || s.path == format!("src/{room}/mod.rs"))
            .unwrap_or_else(|| panic!("room {room} has no file"));
        if !head.text.lines().any(|l| l.trim() == "#![forbid(unsafe_code)]") {
            broken.push(head.path.clone());
        }
    }
    assert_none(broken, "room heads without #![forbid(unsafe_code)]");
}

#[test]
fn the_pure_rooms_touch_nothing() {
    let mut broken = Vec::new();
    for source in sources("src").iter().filter(|s| s.room().is_some_and(|r| PURE.contains(&r))) {
        let code = source.code();
        for root in ["std", "tokio", "nix", "libc", "jiff", "crate"] {
            for path in paths(&code, root) {
                let below = |banned: &&&str| path == **banned || path.starts_with(&format!("{banned}::"));
                if IMPURE.iter().any(|b| below(&b)) || path.starts_with("crate::sys") {
                    broken.push(format!("{}: {path}", source.path));
                }
            }
        }
    }
    assert_none(broken, "I/O, threads or clocks in rooms that only think");
}

#[test]
fn files_stay_short() {
    let all = sources("src");
    let mut lengths: Vec<(usize, &str)> =
        all.iter().filter(|s| !s.is_test()).map(|s| (s.production().len(), s.path.as_str())).collect();
    lengths.sort_unstable();
    let long = lengths.iter().filter(|(n, _)| *n > LONGEST).map(|(n, path)| format!("{path}: {n} lines"));
    assert_none(long.collect(), &format!("files with more than {LONGEST} production lines"));
    let median = lengths[lengths.len() / 2].0;
    assert!(median <= MEDIAN, "the median file has {median} production lines; {MEDIAN} is the ceiling");
}

#[test]
fn each_file_says_what_it_is_for() {
    let silent = |s: &&Source| !s.text.lines().next().is_some_and(|l| l.starts_with("//! ") && l.len() > 8);
    for folder in ["src", "tests"] {
        let all = sources(folder);
        assert_none(
            all.iter().filter(silent).map(|s| s.path.clone()).collect(),
            "files that do not open with a //! head",
        );
    }
}

#[test]
fn lines_fit_a_screen() {
    let mut broken = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        for (i, line) in source.text.lines().enumerate().filter(|(_, l)| l.chars().count() > WIDEST) {
            broken.push(format!("{}:{}: {} columns", source.path, i + 1, line.chars().count()));
        }
    }
    assert_none(broken, &format!("lines wider than {WIDEST} columns"));
}

#[test]
fn nothing_is_left_for_later() {
    // In halves, so that this list does not find itself.
    let halves =
        [("to", "do!"), ("unimpl", "emented!"), ("db", "g!("), ("FIX", "ME"), ("TO", "DO"), ("XX", "X")];
    let words: Vec<String> =
        halves.iter().map(|(a, b)| format!("{a}{b}")).chain([format!("#[{}", "ignore")]).collect();
    let mut broken = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        for (i, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|w| stands_alone(line, w)) {
                broken.push(format!("{}:{}: {word}", source.path, i + 1));
            }
        }
    }
    assert_none(broken, "unfinished work and ignored tests");
}

/// `word` is in `line`, and not as the middle of a longer word (`/tmp/fileXXXXXX` is fine).
fn stands_alone(line: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        let open = word.ends_with(|c: char| !c.is_alphanumeric());
        !is_part(line[..at].chars().next_back()) && (open || !is_part(line[at + word.len()..].chars().next()))
    })
}

#[test]
fn each_file_is_compiled() {
    let all = sources("src");
    let mut orphans = Vec::new();
    for source in all.iter().filter(|s| s.path != "src/lib.rs" && !s.path.starts_with("src/bin/")) {
        let path = Path::new(&source.path);
        let mut folder = path.parent().unwrap().to_path_buf();
        let mut name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "mod" {
            name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            folder.pop();
        }
        let candidates = [folder.join("mod.rs"), folder.with_extension("rs"), folder.join("lib.rs")];
        let declares = |parent: &Source| {
            parent.text.lines().any(|l| {
                let l = l.trim();
                l == format!("mod {name};") || l.ends_with(&format!(" mod {name};"))
            })
        };
        let reached = |p: &Source| candidates.iter().any(|c| c == Path::new(&p.path)) && declares(p);
        if !all.iter().any(reached) {
            orphans.push(source.path.clone());
        }
    }
    assert_none(orphans, "files that no `mod` declares: the compiler never sees them");
}

/// Each claim of docs/security.md names the tests that hold it, or says why it is not held; and these tests exist.
#[test]
fn each_claim_of_security_has_its_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md")).unwrap();
    let all: String = sources("src").into_iter().chain(sources("tests")).map(|s| s.text).collect();
    let is_name =
        |w: &str| w.matches('_').count() >= 2 && w.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    let (mut broken, mut numbers) = (Vec::new(), Vec::new());
    for row in
        text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| claim") && !l.starts_with("| # "))
    {
        let proof = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        numbers.extend(row.split(' ').nth(1).and_then(|n| n.parse::<u32>().ok()));
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).filter(|w| is_name(w)).collect();
        if named.is_empty() && !proof.contains("not held, because") {
            broken.push(format!("no test, and no reason why: {row}"));
        }
        for name in named {
            let exists =
                [format!("fn {name}("), format!("(\"{name}\",")].iter().any(|form| all.contains(form));
            if !exists {
                broken.push(format!("there is no test {name}"));
            }
        }
    }
    assert_eq!(numbers, (1..=24).collect::<Vec<u32>>(), "the rows of the checklist");
    assert_none(broken, "docs/security.md");
}

#[test]
fn the_rules_see_what_they_look_for() {
    let code =
        "use crate::{plan::{Name, RunId as R}, sys};\nfn f() { crate::logs::pump(); std::fs::read(x) }";
    let found: Vec<String> = paths(code, "crate").into_iter().collect();
    assert_eq!(found, ["crate::logs::pump", "crate::plan::Name", "crate::plan::RunId", "crate::sys"]);
    assert!(paths(code, "std").contains("std::fs::read"));
    assert_eq!(without_comment(r#"let a = "http://x"; // crate::api"#), r#"let a = "http://x"; "#);
    assert!(stands_alone(&["// FIX", "ME later"].concat(), &["FIX", "ME"].concat()));
    assert!(!stands_alone("/tmp/aXXXXXX", &["XX", "X"].concat()));
    let gated =
        Source { path: "src/x.rs".into(), text: "a\nb\n#[cfg(test)]\n#[path = \"y\"]\nmod tests {\n".into() };
    assert_eq!(gated.production(), ["a", "b"]);
    let helper = Source { path: "src/x.rs".into(), text: "a\n#[cfg(test)]\nfn f() {}\n".into() };
    assert_eq!(helper.production().len(), 3);
}
