//! Lines beside the file: what journald and syslog get, and that whatever they do holds up neither the file nor
//! the service.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine;

use engine::{LIMIT, Rig, lines, pipe, text, wait_until};
use keepd::{
    logs::{Engine, Receivers, Report},
    plan::{LogFormat, LogSpec, Name, Receiver, RunId},
};
use std::{
    collections::BTreeMap, fs, io::Write, os::unix::net::UnixDatagram, path::PathBuf, sync::mpsc, thread,
};

/// A rig whose engine forwards to sockets in its folder.
struct Post {
    rig: Rig,
    receivers: Receivers,
}

impl Post {
    fn new() -> Post {
        Post::begin(tempfile::tempdir().unwrap())
    }

    fn begin(folder: tempfile::TempDir) -> Post {
        let sockets = folder.path().join(".sockets");
        fs::create_dir_all(&sockets).unwrap();
        let receivers = Receivers { journal: sockets.join("journal"), syslog: sockets.join("log") };
        let (send, reports) = mpsc::channel();
        let engine = Engine::start(move |report| drop(send.send(report))).unwrap();
        let engine = engine.forwarding_to(receivers.clone());
        Post { rig: Rig { engine, reports, folder }, receivers }
    }

    /// Ends this engine as at a stop of keepd, and begins another.
    fn again(self) -> Post {
        let Rig { engine, folder, .. } = self.rig;
        engine.stop();
        Post::begin(folder)
    }

    fn spec(&self, service: &str, forward: &[Receiver]) -> LogSpec {
        LogSpec { forward: forward.to_vec(), ..self.rig.spec(service, 1 << 30) }
    }

    fn forwards(&self, service: &str) -> (u64, u64) {
        self.rig.engine.counters(&Name::new(service)).forwards()
    }
}

const JOURNAL: &[Receiver] = &[Receiver::Journal];
const SYSLOG: &[Receiver] = &[Receiver::Syslog];

fn listen(path: &PathBuf) -> UnixDatagram {
    let _ = fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn datagram(socket: &UnixDatagram) -> Vec<u8> {
    let mut buf = vec![0; 200_000];
    let n = socket.recv(&mut buf).unwrap();
    buf.truncate(n);
    buf
}

/// The fields of an entry for the journal, which are all on one line here.
fn entry(socket: &UnixDatagram) -> BTreeMap<String, Vec<u8>> {
    let bytes = datagram(socket);
    let fields = bytes.strip_suffix(b"\n").unwrap().split(|b| *b == b'\n');
    let field = |f: &[u8]| {
        let at = f.iter().position(|b| *b == b'=').unwrap();
        (String::from_utf8(f[..at].to_vec()).unwrap(), f[at + 1..].to_vec())
    };
    fields.map(field).collect()
}

fn message(socket: &UnixDatagram) -> String {
    String::from_utf8(entry(socket)["MESSAGE"].clone()).unwrap()
}

/// What syslog got behind the head.
fn said(socket: &UnixDatagram) -> String {
    String::from_utf8(datagram(socket)).unwrap().split_once(": ").unwrap().1.to_owned()
}

#[test]
fn each_line_goes_to_every_receiver_and_the_file() {
    let post = Post::new();
    let (journal, syslog) = (listen(&post.receivers.journal), listen(&post.receivers.syslog));
    let spec = post.spec("web", &Receiver::ALL);
    let ((out, mut stdout), (err, mut stderr)) = (pipe(), pipe());
    post.rig.engine.attach(&Name::new("web"), RunId(1), &spec, Some(out), Some(err));
    stdout.write_all(b"one\n<3>bad\n\nb\0in\xff\n").unwrap();
    let wanted: [(&[u8], &[u8]); 4] = [(b"one", b"6"), (b"bad", b"3"), (b"", b"6"), (b"b\0in\xff", b"6")];
    for (text, priority) in wanted {
        let entry = entry(&journal);
        assert_eq!((&*entry["MESSAGE"], &*entry["PRIORITY"]), (text, priority));
        assert_eq!((&*entry["SYSLOG_IDENTIFIER"], &*entry["KEEPD_STREAM"]), (&b"web"[..], &b"stdout"[..]));
        assert!(!entry.contains_key("KEEPD_CONTINUES"));
    }
    stderr.write_all(b"oops\n").unwrap();
    let oops = entry(&journal);
    assert_eq!((&*oops["KEEPD_STREAM"], &*oops["PRIORITY"]), (&b"stderr"[..], &b"4"[..]));
    let got: Vec<Vec<u8>> = (0..5).map(|_| datagram(&syslog)).collect();
    assert!(got[0].starts_with(b"<30>") && got[0].ends_with(b" web: one"), "{got:?}");
    assert!(got[1].starts_with(b"<27>") && got[1].ends_with(b" web: bad"), "{got:?}");
    assert!(got[3].ends_with(b" web: b#000in\xff") && got[4].starts_with(b"<28>"), "{got:?}");
    wait_until("all is counted", || post.forwards("web") == (10, 0));
    assert_eq!(fs::read(post.rig.dir("web").join("current")).unwrap(), b"one\n<3>bad\n\nb\0in\xff\n");
}

#[test]
fn what_the_file_adds_is_not_forwarded() {
    let post = Post::new();
    let journal = listen(&post.receivers.journal);
    for (run, format) in [(1, LogFormat::Timestamp), (2, LogFormat::Json)] {
        let name = format!("web{run}");
        let spec = LogSpec { format, max_line: 100, ..post.spec(&name, JOURNAL) };
        let mut input = post.rig.attach(&name, run, &spec);
        let long = "\\".repeat(150);
        write!(input, "hello \"you\"\n{long}\nend").unwrap();
        assert_eq!(message(&journal), "hello \"you\"");
        let part = entry(&journal);
        assert_eq!((&*part["MESSAGE"], &*part["KEEPD_CONTINUES"]), (&long.as_bytes()[..100], &b"1"[..]));
        assert_eq!(message(&journal), long[..50]);
        drop(input);
        post.rig.finish(run);
        assert_eq!(message(&journal), "end");
        wait_until("lines are counted, not parts", || post.forwards(&name) == (3, 0));
    }
}

#[test]
fn a_run_that_ends_within_a_line_ends_the_line() {
    let post = Post::new();
    let journal = listen(&post.receivers.journal);
    let spec = post.spec("web", JOURNAL);
    for run in 1..50 {
        let mut input = post.rig.attach("web", run, &spec);
        write!(input, "begun {run}\nnot ended {run}").unwrap();
        drop(input);
        post.rig.finish(run);
    }
    for run in 1..50 {
        assert_eq!(message(&journal), format!("begun {run}"));
        assert_eq!(message(&journal), format!("not ended {run}"));
    }
}

#[test]
fn lines_of_any_length_come_in_parts() {
    let post = Post::new();
    let (journal, syslog) = (listen(&post.receivers.journal), listen(&post.receivers.syslog));
    let long = lines(0..5_000).replace('\n', "/");
    let whole = format!("{long}\nshort\n");
    let spec = post.spec("web", &Receiver::ALL);
    let mut input = post.rig.attach("web", 1, &spec);
    let writer = thread::spawn(move || input.write_all(whole.as_bytes()).map(|()| input).unwrap());
    let mut got = String::new();
    loop {
        let entry = entry(&journal);
        let text = String::from_utf8(entry["MESSAGE"].clone()).unwrap();
        if !entry.contains_key("KEEPD_CONTINUES") {
            got += &text;
            break;
        }
        assert!(text.len() <= 64 << 10);
        got += &text;
    }
    assert_eq!(got, long);
    assert_eq!(message(&journal), "short");
    let mut got = String::new();
    while got.len() < long.len() {
        let text = said(&syslog);
        assert!(text.len() <= 8000);
        got += &text;
    }
    assert_eq!(got, long);
    assert_eq!(said(&syslog), "short");
    drop(writer.join());
}

/// Nobody reads from the receiver: the service writes far more than waits for it, and no write waits.
#[test]
fn a_stuck_receiver_holds_up_nothing() {
    let post = Post::new();
    let journal = listen(&post.receivers.journal);
    let mut input = post.rig.attach("web", 1, &post.spec("web", JOURNAL));
    let all = lines(0..500_000);
    assert!(all.len() > 24 << 20);
    input.write_all(all.as_bytes()).unwrap();
    post.rig.written("web", all.len() as u64);
    // Others get on meanwhile: those that are not forwarded, and those that go elsewhere.
    let syslog = listen(&post.receivers.syslog);
    let mut other = post.rig.attach("other", 2, &post.spec("other", SYSLOG));
    other.write_all(b"here\n").unwrap();
    assert_eq!(said(&syslog), "here");
    // Left out is what is too much, and it is counted.
    wait_until("lines are left out", || post.forwards("web").1 > 0);
    assert!(post.rig.in_trouble("web").contains("it takes no more"));
    input.write_all(b"the last one\n").unwrap();
    let mut next = 0;
    let mut lost = None;
    loop {
        let text = message(&journal);
        if let Some(rest) = text.strip_prefix("keepd: ") {
            assert_eq!(lost, None, "told once");
            let numbers: Vec<u64> =
                rest.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
            assert_eq!(
                text,
                format!("keepd: {} lines ({} bytes) were not forwarded here", numbers[0], numbers[1])
            );
            assert_eq!(numbers[1] as usize, lines(next..next + numbers[0]).len());
            next += numbers[0];
            lost = Some(numbers[0]);
        } else if text == "the last one" {
            break;
        } else {
            assert_eq!(format!("{text}\n"), engine::line(next), "in order, and whole");
            next += 1;
        }
    }
    assert_eq!(next, 500_000);
    let lost = lost.unwrap();
    wait_until("sent and left out is all", || post.forwards("web") == (500_001 - lost, lost));
    post.rig.recovered("web");
    assert!(text(&post.rig.dir("web")) == all + "the last one\n", "the file has all of it");
    assert_eq!(post.rig.totals("web").2, 0);
}

#[test]
fn a_receiver_that_comes_late_goes_and_comes_back_gets_every_line() {
    let post = Post::new();
    let mut input = post.rig.attach("web", 1, &post.spec("web", JOURNAL));
    input.write_all(b"early\n").unwrap();
    let trouble = post.rig.in_trouble("web");
    assert!(trouble.contains("cannot forward to journal") && trouble.contains("No such file"), "{trouble}");
    for round in 0..3 {
        // Another socket each time, and each time another file at that path.
        let journal = listen(&post.receivers.journal);
        if round == 0 {
            assert_eq!(message(&journal), "early");
            post.rig.recovered("web");
        } else {
            assert_eq!(message(&journal), format!("while {} was away", round));
        }
        writeln!(input, "to {round}").unwrap();
        assert_eq!(message(&journal), format!("to {round}"));
        drop(journal);
        writeln!(input, "while {} was away", round + 1).unwrap();
        post.rig.written("web", 1);
    }
    assert_eq!(post.forwards("web").1, 0);
}

/// Its socket stays, and is full; another listens under its name.
#[test]
fn a_receiver_that_is_replaced_while_it_is_stuck_is_left() {
    let post = Post::new();
    let stuck = listen(&post.receivers.syslog);
    let mut input = post.rig.attach("web", 1, &post.spec("web", SYSLOG));
    let all = lines(0..20_000);
    input.write_all(all.as_bytes()).unwrap();
    post.rig.in_trouble("web");
    let fresh = listen(&post.receivers.syslog);
    let first = said(&fresh);
    let at = all.lines().position(|l| l == first).unwrap();
    for line in all.lines().skip(at + 1) {
        assert_eq!(said(&fresh), line);
    }
    for line in all.lines().take(at) {
        assert_eq!(said(&stuck), line);
    }
}

#[test]
fn the_next_keepd_goes_on_where_the_last_one_ended() {
    let mut post = Post::new();
    let journal = listen(&post.receivers.journal);
    for run in 0..4 {
        let spec = LogSpec { max_size: 4000, ..post.spec("web", JOURNAL) };
        let mut input = post.rig.attach("web", run + 1, &spec);
        let (from, to) = (run * 1000, run * 1000 + 1000);
        input.write_all(lines(from..to).as_bytes()).unwrap();
        // Some are read, some are on their way, some wait in many files.
        for n in from..to {
            if n == from + 300 {
                drop(input);
                post.rig.finish(run + 1);
                post = post.again();
                let spec = LogSpec { max_size: 4000, ..post.spec("web", JOURNAL) };
                input = post.rig.attach("web", 100 + run, &spec);
                input.write_all(b"!\n").unwrap();
            }
            assert_eq!(message(&journal) + "\n", engine::line(n));
        }
        assert_eq!(message(&journal), "!");
        drop(input);
        post.rig.finish(100 + run);
    }
}

#[test]
fn a_receiver_gets_what_comes_after_it_was_asked_for() {
    let post = Post::new();
    let (journal, syslog) = (listen(&post.receivers.journal), listen(&post.receivers.syslog));
    let web = Name::new("web");
    let mut input = post.rig.attach("web", 1, &post.spec("web", &[]));
    let mut sent = 0;
    let mut say = |text: &str| {
        input.write_all(text.as_bytes()).unwrap();
        sent += text.len() as u64;
        post.rig.written("web", sent);
    };
    say("nobody\n");
    post.rig.engine.update(&web, &post.spec("web", JOURNAL));
    say("journal\n");
    assert_eq!(message(&journal), "journal");
    post.rig.engine.update(&web, &post.spec("web", &Receiver::ALL));
    say("both\n");
    assert_eq!((message(&journal), said(&syslog)), ("both".into(), "both".into()));
    let note = post.rig.dir("web").join(".forwarded-journal");
    assert!(note.exists());
    post.rig.engine.update(&web, &post.spec("web", SYSLOG));
    wait_until("what was noted is gone", || !note.exists());
    say("syslog\n");
    assert_eq!(said(&syslog), "syslog");
    post.rig.engine.update(&web, &post.spec("web", &Receiver::ALL));
    say("both again\n");
    assert_eq!((message(&journal), said(&syslog)), ("both again".into(), "both again".into()));
}

#[test]
fn what_nobody_wants_forwarded_costs_no_thread() {
    let threads = || {
        let all = fs::read_dir("/proc/self/task").unwrap();
        all.filter_map(|t| fs::read_to_string(t.unwrap().path().join("comm")).ok())
            .filter(|name| name.trim() == "logs-forward")
            .count()
    };
    let post = Post::new();
    let before = threads();
    let mut input = post.rig.attach("web", 1, &post.spec("web", &[]));
    input.write_all(b"hello\n").unwrap();
    drop(input);
    post.rig.finish(1);
    assert_eq!(threads(), before);
    assert!(!post.rig.dir("web").join(".forwarded-journal").exists());
    assert!(!post.rig.reports.try_iter().any(|r| matches!(r, Report::Trouble { .. })));
}
