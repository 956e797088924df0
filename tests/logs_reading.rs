//! Reading logs as callers do, through keepctl and the API: over rotations and compression, of huge files, by time
//! and pattern, without keepd, and by readers that stop reading.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{Daemon, LATER, SOON, Setup, proc_status, rotated, service, signal, skip, text, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::FileExt, net::UnixStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Collects what a command prints.
struct Follower {
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Follower {
    fn start(mut command: Command) -> Follower {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let (seen, mut stdout) = (Arc::new(Mutex::new(Vec::new())), child.stdout.take().unwrap());
        let into = seen.clone();
        let thread = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut chunk) {
                into.lock().unwrap().extend_from_slice(&chunk[..n]);
            }
        });
        Follower { child, seen, thread }
    }

    fn wait(&self, needle: &str) {
        wait_for(&format!("`{needle}` from a follower"), LATER, || {
            let seen = self.seen.lock().unwrap();
            seen.windows(needle.len()).any(|w| w == needle.as_bytes()).then_some(())
        });
    }

    fn end(mut self) -> Vec<u8> {
        signal(self.child.id(), Signal::SIGTERM);
        self.child.wait().unwrap();
        self.thread.join().unwrap();
        Arc::into_inner(self.seen).unwrap().into_inner().unwrap()
    }
}

/// Compresses a rotated file as keepd does: whole under another name first, and both are there for a moment.
fn compress(file: &Path) {
    let done = Command::new("gzip").arg("-c").arg(file).output().unwrap();
    assert!(done.status.success());
    let fresh = file.with_extension("log.gz~");
    fs::write(&fresh, done.stdout).unwrap();
    fs::rename(&fresh, file.with_extension("log.gz")).unwrap();
    // keepd may have removed it: it takes the two for what a kill has left.
    let _ = fs::remove_file(file);
}

#[test]
fn following_over_a_thousand_rotations_and_compression_is_byte_exact() {
    let script = "echo begin; while [ ! -e go ]; do sleep 0.02; done; exec awk 'BEGIN { for (i = 0; i < 24000; i++) \
                  { print \"line\", i, \"........................\"; if (i % 50 == 0) fflush() } print \"the end\" }'";
    let more = "restart = \"never\"\nlogs = { max-size = \"700B\", keep = 5000, compress = \"none\" }\n";
    let d = Daemon::start(&service("writer", script, more));
    let folder = d.path().join("log/writer");
    d.wait_log("writer", "begin");
    let follower = Follower::start(d.ctl_command(None, &["logs", "-f", "writer"]));
    follower.wait("begin");
    let done = Arc::new(AtomicBool::new(false));
    let compressor = std::thread::spawn({
        let (folder, done) = (folder.clone(), done.clone());
        move || {
            let mut count = 0;
            while !done.load(Relaxed) {
                let plain =
                    rotated(&folder).into_iter().filter(|f| f.extension().is_some_and(|e| e == "log"));
                for file in plain.step_by(3).take(20) {
                    compress(&file);
                    count += 1;
                }
                std::thread::yield_now();
            }
            count
        }
    });
    fs::write(d.path().join("go"), "").unwrap();
    follower.wait("the end\n");
    done.store(true, Relaxed);
    let compressed = compressor.join().unwrap();
    let seen = follower.end();
    assert!(compressed > 0, "nothing was compressed meanwhile");
    assert!(rotated(&folder).len() >= 1000, "only {} rotations", rotated(&folder).len());
    let mut wanted = String::from("begin\n");
    (0..24_000).for_each(|i| wanted += &format!("line {i} ........................\n"));
    wanted += "the end\n";
    assert!(seen == wanted.as_bytes(), "{} bytes instead of {}", seen.len(), wanted.len());
    // And whoever comes late gets the same of the files, compressed or not.
    let all = d.ctl(&["logs", "-n", "1000000", "writer"]).stdout;
    assert!(all == wanted.as_bytes(), "{} bytes instead of {}", all.len(), wanted.len());
    d.shutdown();
}

/// keepctl with so little address space that it cannot hold a file.
fn confined(d: &Daemon, args: &[&str]) -> std::process::Output {
    let keepctl = d.ctl_command(None, args);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -v 150000; exec \"$0\" \"$@\""]).arg(keepctl.get_program());
    command.args(keepctl.get_args()).env_clear().current_dir(d.path()).output().unwrap()
}

#[test]
fn the_end_of_ten_gigabytes_is_found_in_flat_memory() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let folder = d.path().join("log/huge");
    fs::create_dir_all(&folder).unwrap();
    // One line of NULs without a byte on the disk, and two short ones.
    let file = fs::File::create(folder.join("current")).unwrap();
    file.write_all_at(b"\nlast but one\nlast\n", 10 << 30).unwrap();
    let dir = d.path().join("log");
    let dir = dir.to_str().unwrap();
    let done = confined(&d, &["logs", "--dir", dir, "huge", "-n", "2"]);
    assert_eq!(text(&done), "last but one\nlast\n");
    // Every byte of a line without an end is looked at.
    file.set_len(0).unwrap();
    file.write_all_at(b"\nlast but one\nlast\n", 96 << 20).unwrap();
    let done = confined(&d, &["logs", "--dir", dir, "huge", "--grep", "last", "-n", "1"]);
    assert_eq!(text(&done), "last\n");
    let done = confined(&d, &["logs", "--dir", dir, "huge", "--since", "1d", "--grep", "but"]);
    assert_eq!(text(&done), "last but one\n");
    d.shutdown();
}

#[test]
fn lines_are_chosen_by_the_time_at_which_they_were_written() {
    let script = "echo early; while [ ! -e go ]; do sleep 0.02; done; echo late; exec sleep 1000";
    let d = Daemon::start(&(service("one", script, "") + &service("two", script, "")));
    d.wait_log("one", "early");
    d.wait_log("two", "early");
    let json = |args: &[&str]| -> Vec<Value> {
        d.ctl_ok(args).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    // Marks are a second apart.
    let early: Vec<String> =
        json(&["logs", "--json"]).iter().map(|l| l["time"].as_str().unwrap().to_owned()).collect();
    assert_eq!(early.len(), 2);
    let marks = || fs::metadata(d.path().join("log/one/.times")).map_or(0, |m| m.len());
    // The first waits for the second.
    assert_eq!(marks(), 0);
    let first: jiff::Timestamp = early.iter().max().unwrap().parse().unwrap();
    let between = wait_for("the time of another mark", SOON, || {
        let now = jiff::Timestamp::now();
        (now.as_millisecond() > first.as_millisecond() + 1500).then(|| now.to_string())
    });
    fs::write(d.path().join("go"), "").unwrap();
    for name in ["one", "two"] {
        d.wait_log(name, "late");
    }
    assert!(marks() > 32, "no marks were left");
    let messages = |lines: Vec<Value>| -> Vec<String> {
        lines
            .iter()
            .map(|l| format!("{} {}", l["service"].as_str().unwrap(), l["message"].as_str().unwrap()))
            .collect()
    };
    let mut late = messages(json(&["logs", "--json", "--since", &between]));
    late.sort();
    assert_eq!(late, ["one late", "two late"]);
    let mut first = messages(json(&["logs", "--json", "--until", &between]));
    first.sort();
    assert_eq!(first, ["one early", "two early"]);
    assert_eq!(d.ctl_ok(&["logs", "one", "--since", &between]), "late\n");
    assert_eq!(d.ctl_ok(&["logs", "one", "--grep", "^e"]), "early\n");
    let shown = d.ctl_ok(&["logs"]);
    let shown: Vec<&str> = shown.lines().collect();
    assert!(shown[..2].iter().all(|l| l.ends_with(" | early")) && shown.len() == 4, "{shown:?}");
    assert!(d.ctl_ok(&["logs", "-t", "two"]).starts_with("20"));
    for (option, value) in [("--since", "soon"), ("--until", "whenever"), ("--grep", "(")] {
        let said = d.ctl_fails(2, &["logs", option, value]);
        assert!(said.contains(&format!("cannot use `{option} {value}`: ")), "{said}");
    }
    for query in ["since=soon", "until=1h&follow=true", "grep=(", "format=xml", "stream=both", "lines=x"] {
        let (code, said) = d.http("GET", &format!("/v1/services/one/logs?{query}"), "");
        assert_eq!(code, 422, "{query}: {said}");
    }
    assert_eq!(d.http("GET", "/v1/logs?services=one,thr*", "").0, 404);
    let (code, two) = d.http("GET", "/v1/logs?services=t*&lines=1", "");
    assert_eq!((code, serde_json::from_str::<Value>(&two).unwrap()["message"].as_str()), (200, Some("late")));
    d.shutdown();
}

#[test]
fn stderr_of_its_own_is_shown_and_marked() {
    let script = "echo out; echo err >&2; printf 'bad \\377\\000\\n'; exec sleep 1000";
    let d = Daemon::start(&service("web", script, "logs = { stderr = \"separate\" }\n"));
    let current = d.path().join("log/web/current");
    wait_for("what is no text", SOON, || fs::read(&current).ok()?.ends_with(b"\xff\0\n").then_some(()));
    d.wait_log("web/stderr", "err");
    let mut lines: Vec<Vec<u8>> =
        d.ctl(&["logs"]).stdout.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    lines.sort();
    assert_eq!(lines, [&b""[..], b"! err", b"| bad \xff\0", b"| out"]);
    assert_eq!(d.ctl_ok(&["logs", "--stderr"]), "err\n");
    let json = d.ctl_ok(&["logs", "web", "--json"]);
    let find = |stream: &str, text: Value| {
        json.lines().any(|l| {
            let line: Value = serde_json::from_str(l).unwrap();
            line["stream"] == stream && line["message"] == text && line["service"] == "web"
        })
    };
    assert!(find("stderr", "err".into()) && find("stdout", "out".into()), "{json}");
    assert!(find("stdout", b"bad \xff\0".iter().map(|b| Value::from(*b)).collect()), "{json}");
    d.shutdown();
}

#[test]
fn without_keepd_the_files_are_read() {
    let script = "echo one; echo two >&2; exec sleep 1000";
    let mut d =
        Daemon::start(&(service("web", script, "") + &service("db", "echo three; exec sleep 1000", "")));
    d.wait_log("web", "two");
    d.wait_log("db", "three");
    let online = d.ctl_ok(&["logs"]);
    d.ctl_ok(&["shutdown"]);
    d.wait_exit(LATER);
    let dir = d.path().join("log");
    let dir = dir.to_str().unwrap();
    assert_eq!(d.ctl_ok(&["logs", "--dir", dir]), online);
    assert_eq!(d.ctl_ok(&["logs", "--dir", dir, "we*", "-n", "1"]), "two\n");
    let said = d.ctl_fails(4, &["logs", "--dir", dir, "nobody"]);
    assert!(said.contains("there are: db, web"), "{said}");
    let said = d.ctl_fails(69, &["logs"]);
    assert!(said.contains("--dir FOLDER"), "{said}");
    let said = d.ctl_fails(1, &["logs", "--dir", "/nonexistent"]);
    assert!(said.contains("cannot read the folder /nonexistent"), "{said}");
    // Followed until its reader has had enough.
    let keepctl = d.ctl_command(None, &["logs", "-f", "web", "--dir", dir]);
    let follower = Follower::start(keepctl);
    follower.wait("two\n");
    let mut file = fs::File::options().append(true).open(d.path().join("log/web/current")).unwrap();
    file.write_all(b"later\n").unwrap();
    follower.wait("later\n");
    assert_eq!(follower.end(), b"one\ntwo\nlater\n");
}

#[test]
fn without_keepd_the_configuration_tells_where_the_files_are() {
    let mut d = Setup {
        services: &service("web", "echo one; exec sleep 1000", ""),
        as_user: true,
        ..Setup::default()
    }
    .start();
    d.wait_log("web", "one");
    d.ctl_ok(&["shutdown"]);
    d.wait_exit(LATER);
    if Path::new("/etc/keepd/keepd.toml").exists() || Path::new("/run/keepd/api.sock").exists() {
        return skip("another keepd is installed here");
    }
    let uid = common::is_root().then_some(common::USER);
    let config = d.path().join("home/.config/keepd");
    fs::create_dir_all(&config).unwrap();
    fs::copy(&d.config, config.join("keepd.toml")).unwrap();
    // As `ctl_command`, without a named socket.
    let mut words: Vec<_> = d.ctl_command(uid, &["logs", "web"]).get_args().map(ToOwned::to_owned).collect();
    words.drain(..2);
    let mut plain = Command::new(d.ctl_command(uid, &[]).get_program());
    plain.args(words).env_clear().env("HOME", d.path().join("home")).current_dir(d.path());
    if let Some(uid) = uid {
        std::os::unix::process::CommandExt::uid(&mut plain, uid);
    }
    let done = plain.output().unwrap();
    assert_eq!(text(&done), "one\nkeepctl: keepd is not running; this is what its files hold\n");
}

#[test]
fn a_reader_that_has_had_enough_ends_quietly() {
    let d = Daemon::start(&service("web", "seq 100000; exec sleep 1000", ""));
    d.wait_log("web", "100000\n");
    for words in [&["logs", "web", "-n", "100000"][..], &["logs", "web", "-t", "-n", "100000"]] {
        let mut child =
            d.ctl_command(None, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut some = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut some).unwrap();
        let done = child.wait_with_output().unwrap();
        assert_eq!((done.status.code(), text(&done)), (Some(141), String::new()), "{words:?}");
    }
    d.shutdown();
}

#[test]
fn a_reader_that_stops_reading_costs_nothing() {
    let d =
        Daemon::start(&service("flood", "exec yes flood flood flood", "logs = { max-size = \"4MiB\" }\n"));
    d.wait_running("flood");
    wait_for("something to read", LATER, || {
        (d.service("flood")["log"]["bytes_in"].as_u64()? > 16 << 20).then_some(())
    });
    let memory = || -> u64 {
        let rss = proc_status(d.manager(), "VmRSS");
        rss.split(' ').next().unwrap().parse().unwrap()
    };
    let before = memory();
    let idle: Vec<UnixStream> = (0..40)
        .map(|n| {
            let mut stream = UnixStream::connect(&d.socket).unwrap();
            let target = match n % 2 {
                0 => "/v1/services/flood/logs?follow=true&lines=1000000",
                _ => "/v1/logs?follow=true&lines=20000&grep=flood",
            };
            write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            stream
        })
        .collect();
    for mut stream in &idle {
        stream.set_read_timeout(Some(LATER)).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let so_far = d.service("flood")["log"]["bytes_in"].as_u64().unwrap();
    wait_for("the log to go on", LATER, || {
        (d.service("flood")["log"]["bytes_in"].as_u64()? > so_far + (64 << 20)).then_some(())
    });
    // Each has a few chunks of 64 KiB waiting; what was written meanwhile is a multiple of that.
    let grown = memory().saturating_sub(before);
    assert!(grown < 40 * 1024, "{grown} KiB for 40 readers that do not read");
    assert_eq!(d.service("flood")["log"]["lines_dropped"], 0);
    // Another reader is served meanwhile, and comes to an end although the log grows faster than it reads.
    let last = d.ctl_ok(&["logs", "flood", "-n", "1"]);
    assert!(last.starts_with('f') && last.len() < 64 << 20, "{} bytes", last.len());
    drop(idle);
    d.ctl_ok(&["stop", "flood"]);
    d.shutdown();
}
