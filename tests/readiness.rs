//! Readiness and life of real processes: what they tell and how they answer, what follows, and that nobody else can
//! tell it for them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, Setup, free_port, is_alive, is_root, service, signal, skip, wait_for, which};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// A service in Python, with what it needs to notify.
fn python(name: &str, body: &str, more: &str) -> String {
    let head = "import os, socket, sys, time\n\
        def tell(text):\n\
        \x20   s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        \x20   s.sendto(text.encode(), os.environ['NOTIFY_SOCKET'])\n\
        def wait(name):\n\
        \x20   while not os.path.exists(name): time.sleep(0.01)\n";
    service(name, &format!("exec python3 -u - <<'EOF'\n{head}{body}\nEOF"), more)
}

const NOTIFY: &str = "ready = { notify = true }\n";

fn is_ready(s: &Value) -> bool {
    s["state"] == "running" && s["ready"] == true
}

fn touch(d: &Daemon, name: &str) {
    fs::write(d.path().join(name), "").unwrap();
}

fn events(d: &Daemon, kind: &str) -> Vec<String> {
    let all = d.ctl_ok(&["events"]);
    all.lines().filter(|l| l.contains(&format!(" {kind} "))).map(str::to_owned).collect()
}

#[test]
fn who_requires_it_waits_for_its_word_and_the_next_manager_knows_it() {
    let db = "tell('STATUS=warming up'); wait('go'); tell('READY=1\\nSTATUS=serving'); time.sleep(1000)";
    let web = service("web", "exec sleep 1000", "requires = [\"db\"]\n");
    let d = Daemon::start(&(python("db", db, NOTIFY) + &web));
    let s = d.wait_service("db", "its status", |s| s["status_text"] == "warming up");
    assert_eq!((&s["ready"], s["reason"].as_str()), (&false.into(), Some("not ready yet")));
    assert_eq!(s["probes"]["ready"]["kind"], "notify");
    let reason = d.service("web")["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason, "waiting for db, which is not ready yet");
    let tree = String::from_utf8(d.ctl(&["status", "--tree"]).stdout).unwrap();
    assert!(
        tree.starts_with("web waiting: ") && tree.contains("└─ requires db running, not ready"),
        "{tree}"
    );
    // What comes while there is no manager is heard by the next one.
    let manager = d.manager();
    signal(manager, Signal::SIGSTOP);
    touch(&d, "go");
    signal(manager, Signal::SIGKILL);
    d.wait_running("web");
    d.wait_service("db", "its word", |s| is_ready(s) && s["status_text"] == "serving");
    d.shutdown();
}

#[test]
fn a_start_waits_for_readiness_and_fails_without() {
    let more = "autostart = false\nready = { notify = true, within = \"300ms\" }\n";
    let d = Daemon::start(&python("db", "time.sleep(1000)", more));
    let failed = d.ctl_fails(1, &["start", "db"]);
    assert!(failed.contains("db was not ready within 300ms"), "{failed}");
    let s = d.wait_service("db", "a failure", |s| s["consecutive_failures"].as_u64() > Some(0));
    assert!(s["reason"].as_str().unwrap().contains("was not ready within 300ms"), "{s}");
    assert!(!events(&d, "launch_failed").is_empty());
    d.shutdown();
}

/// The newline of s6, on the descriptor that was asked for, and nothing else is left open there.
#[test]
fn a_newline_is_readiness() {
    let script = "echo warm >&7; until [ -e go ]; do sleep 0.05; done; exec 7>&-; exec sleep 1000";
    let late = "until [ -e go ]; do sleep 0.05; done; echo >&3; exec sleep 1000";
    let d = Daemon::start(
        &(service("at-once", script, "ready = { fd = 7 }\n")
            + &service("late", late, "ready = { fd = 3 }\n")),
    );
    d.wait_service("at-once", "its newline", is_ready);
    assert_eq!(d.service("late")["ready"], false);
    touch(&d, "go");
    d.wait_service("late", "its newline", is_ready);
    d.shutdown();
}

#[test]
fn a_line_of_the_log_is_readiness_but_not_one_of_an_earlier_run() {
    let script = "echo started; until [ -e go ]; do sleep 0.05; done; echo listening on 80; exec sleep 1000";
    let d = Daemon::start(&service(
        "web",
        script,
        "ready = { log = \"^listening on [0-9]+$\", interval = \"50ms\" }\n",
    ));
    d.wait_log("web", "started");
    assert_eq!(d.service("web")["ready"], false);
    touch(&d, "go");
    d.wait_service("web", "its line", is_ready);
    fs::remove_file(d.path().join("go")).unwrap();
    let first = d.pid("web");
    signal(first, Signal::SIGKILL);
    let s = d.wait_service("web", "a look at the log", |s| {
        s["pid"] != first && s["probes"]["ready"]["message"].is_string()
    });
    assert_eq!(s["ready"], false, "{s}");
    touch(&d, "go");
    d.wait_service("web", "its line", is_ready);
    d.shutdown();
}

/// What libsystemd's own client sends, and its barrier.
#[test]
fn systemds_own_client_is_understood() {
    if which("systemd-notify").is_none() {
        return skip("systemd-notify is not installed");
    }
    let script = "systemd-notify --ready --status='up and well' && touch told; exec sleep 1000";
    let d = Daemon::start(&service("web", script, NOTIFY));
    let s = d.wait_service("web", "its word", is_ready);
    assert_eq!(s["status_text"], "up and well");
    // It waits for us to close its barrier; otherwise it fails after seconds.
    wait_for("the client to return", LATER, || d.path().join("told").exists().then_some(()));
    d.shutdown();
}

#[test]
fn only_its_own_processes_are_believed() {
    if !is_root() {
        return skip("other users' processes take root");
    }
    let web =
        "open('at', 'w').write(os.environ['NOTIFY_SOCKET']); wait('go'); tell('READY=1'); time.sleep(1000)";
    let d = Daemon::start(&python("web", web, NOTIFY));
    let at = wait_for("its socket", LATER, || {
        fs::read_to_string(d.path().join("at")).ok().filter(|t| !t.is_empty())
    });
    #[allow(clippy::disallowed_methods)]
    let status = Command::new("setpriv")
        .args(["--reuid=12345", "--clear-groups", "python3", "-c"])
        .arg(format!(
            "import socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', '{at}')"
        ))
        .output()
        .unwrap();
    assert!(
        !status.status.success() && String::from_utf8_lossy(&status.stderr).contains("Permission"),
        "{status:?}"
    );
    // Root can write to it, but is no process of the service.
    let ours = UnixDatagram::unbound().unwrap();
    ours.send_to(b"READY=1\nMAINPID=1", &at).unwrap();
    wait_for("the refusal", LATER, || {
        events(&d, "manager").iter().any(|l| l.contains("that is no process of the service")).then_some(())
    });
    assert_eq!(d.service("web")["ready"], false);
    touch(&d, "go");
    d.wait_service("web", "its own word", is_ready);
    d.shutdown();
}

/// War stories 32 and 89: strange messages, and one whose sender is gone at once. `KEEPD_DATAGRAMS=1000000` makes the
/// flood longer.
#[test]
fn floods_and_junk_hold_nobody_up() {
    let count = std::env::var("KEEPD_DATAGRAMS").map_or(2_000, |n| n.parse().unwrap());
    let web = format!(
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ['NOTIFY_SOCKET'])\n\
         for junk in [b'', b'\\0', b'x' * 60000, b'READY=' * 600, os.urandom(4000), b'\\n' * 4000,\n\
         \x20            b'MAINPID=1', b'MAINPID=-7']:\n\
         \x20   s.send(junk)\n\
         r, w = os.pipe()\n\
         for n in range(50): socket.send_fds(s, [b'FDSTORE=1'], [r] * 200)\n\
         for n in range({count}): s.send(b'STATUS=%d' % n)\n\
         if os.fork() == 0:\n\
         \x20   s.send(b'READY=1')\n\
         \x20   os._exit(0)\n\
         time.sleep(1000)"
    );
    let other = service("other", "exec sleep 1000", "");
    let d = Daemon::start(&(python("web", &web, NOTIFY) + &other));
    d.wait_running("other");
    let fds = || fs::read_dir(format!("/proc/{}/fd", d.keeper())).unwrap().count();
    let before = fds();
    let limit = LATER + std::time::Duration::from_millis(count * 2);
    wait_for("the end of the flood", limit, || is_ready(&d.service("web")).then_some(()));
    assert_eq!(d.service("web")["status_text"], (count - 1).to_string());
    assert!(fds() <= before + 4, "{} descriptors, and {before} before", fds());
    d.ctl_ok(&["restart", "other"]);
    d.shutdown();
}

#[test]
fn a_new_main_process_is_held_and_a_strangers_is_not() {
    let web = "pid = os.fork()\n\
        if pid == 0: time.sleep(1000)\n\
        tell('READY=1\\nMAINPID=%d' % pid); wait('go'); os._exit(3)";
    let d = Daemon::start(&python("web", web, NOTIFY));
    let first = d.wait_service("web", "its word", is_ready);
    let main = d.wait_service("web", "its child", |s| s["pid"].is_u64() && s["restarts"] == 0);
    touch(&d, "go");
    let pid = u32::try_from(main["pid"].as_u64().unwrap()).unwrap();
    wait_for("its parent to go", LATER, || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.contains(&format!("PPid:\t{}", d.keeper())).then_some(())
    });
    assert_eq!(
        (d.pid("web"), &d.service("web")["run_id"]),
        (pid, &first["run_id"]),
        "its end was none of the run"
    );
    signal(pid, Signal::SIGKILL);
    d.wait_service("web", "a successor", |s| {
        s["run_id"] != first["run_id"] && s["last_exit"]["signal"] == "SIGKILL"
    });
    d.shutdown();
}

#[test]
fn a_watchdog_that_is_not_fed_ends_the_run() {
    let web = "tell('READY=1')\n\
        every = int(os.environ['WATCHDOG_USEC']) / 1e6 / 2\n\
        while not os.path.exists('hang'): tell('WATCHDOG=1'); time.sleep(every)\n\
        os.remove('hang'); time.sleep(1000)";
    let more = "ready = { notify = true }\nlive = { notify = true, interval = \"400ms\", failures = 2 }\n";
    let d = Daemon::start(&python("web", web, more));
    d.wait_service("web", "its word", is_ready);
    d.wait_service("web", "its food", |s| s["probes"]["live"]["passing"] == true);
    let first = d.pid("web");
    touch(&d, "hang");
    d.wait_service("web", "a successor", |s| is_ready(s) && s["pid"] != first);
    let told = events(&d, "unhealthy");
    assert!(
        told.len() == 1 && told[0].contains("it sent no WATCHDOG=1 for 400ms; it is stopped"),
        "{told:?}"
    );
    d.shutdown();
}

/// How the little web server answers.
#[derive(Clone, Copy)]
enum Mood {
    Well,
    Error,
    Silent,
    Drop,
    Slow,
}

/// A web server in this process, whose mood can be changed; it counts who is connected at a time.
struct Web {
    port: u16,
    mood: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

const MOODS: [Mood; 5] = [Mood::Well, Mood::Error, Mood::Silent, Mood::Drop, Mood::Slow];

impl Web {
    fn new() -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mood, most, here) =
            (Arc::new(AtomicUsize::new(0)), Arc::default(), Arc::<AtomicUsize>::default());
        let web = Web { port, mood: Arc::clone(&mood), most: Arc::clone(&most) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mood, here, most) = (MOODS[mood.load(Ordering::SeqCst)], here.clone(), most.clone());
                thread::spawn(move || {
                    most.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    answer(stream.unwrap(), mood);
                    here.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        web
    }

    fn set(&self, mood: usize) {
        self.mood.store(mood, Ordering::SeqCst);
    }
}

fn answer(mut stream: TcpStream, mood: Mood) {
    let mut buffer = [0; 1024];
    let _ = stream.read(&mut buffer);
    // Until the other side has had enough.
    let _ = match mood {
        Mood::Well => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nup"),
        Mood::Error => stream.write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
        Mood::Silent => stream.read(&mut buffer).map(drop),
        Mood::Drop => Ok(()),
        Mood::Slow => b"HTTP/1.1 200 OK".iter().try_for_each(|byte| {
            stream.write_all(&[*byte])?;
            stream.set_read_timeout(Some(std::time::Duration::from_millis(100)))?;
            match stream.read(&mut buffer) {
                Ok(0) => Err(std::io::ErrorKind::BrokenPipe.into()),
                _ => Ok(()),
            }
        }),
    };
}

#[test]
fn every_way_to_be_ill_over_http_is_told_and_followed() {
    let web = Web::new();
    let url = format!("http = \"http://localhost:{}/health\"", web.port);
    let more = format!(
        "ready = {{ {url}, http-body = \"^up$\", interval = \"50ms\", timeout = \"50ms\" }}\n\
         live = {{ {url}, interval = \"50ms\", timeout = \"50ms\", action = \"alert\" }}\n"
    );
    let d = Daemon::start(&service("web", "exec sleep 1000", &more));
    d.wait_service("web", "readiness", is_ready);
    for (mood, why) in [
        (1, "it answered 500"),
        (2, "no answer within 50ms"),
        (3, "it closed the connection without an answer"),
        (4, "no answer within 50ms"),
    ] {
        web.set(mood);
        let s = d.wait_service("web", why, |s| {
            s["ready"] == false && s["probes"]["live"]["failures"].as_u64() >= Some(3)
        });
        let told = s["reason"].as_str().unwrap();
        assert!(told.starts_with("not ready any more: "), "{told}");
        d.wait_service("web", why, |s| s["probes"]["ready"]["message"] == why);
        web.set(0);
        d.wait_service("web", "health", |s| is_ready(s) && s["reason"] == "");
    }
    assert!(web.most.load(Ordering::SeqCst) <= 4, "probes overlap themselves");
    assert_eq!(d.service("web")["restarts"], 0);
    d.shutdown();
}

#[test]
fn who_is_ill_is_restarted_and_counts_as_failed() {
    let web = Web::new();
    let live = format!("live = {{ tcp = \"127.0.0.1:{}\" }}\n", free_port());
    let http = format!(
        "live = {{ http = \"http://127.0.0.1:{}/\", interval = \"100ms\", timeout = \"50ms\" }}\n\
         stop-timeout = \"1s\"\n",
        web.port
    );
    let hung = service("web", "trap '' TERM; while :; do sleep 1; done", &http);
    let d = Daemon::start(&(hung + &service("calm", "exec sleep 1000", &live)));
    let first = d.wait_running("web");
    d.wait_service("web", "an answer", |s| s["probes"]["live"]["passing"] == true);
    web.set(1);
    let s = d.wait_service("web", "a successor", |s| s["restarts"].as_u64() >= Some(1));
    assert!(!is_alive(first) && s["consecutive_failures"].as_u64() >= Some(1), "{s}");
    web.set(0);
    d.wait_service("web", "health", |s| s["probes"]["live"]["passing"] == true && s["state"] == "running");
    assert!(events(&d, "unhealthy")[0].contains("web is unhealthy: it answered 500; it is stopped"));
    d.shutdown();
}

/// War story 43: a probe that leaves something behind, which holds its output open, costs nothing for long.
#[test]
fn a_probes_command_is_the_services_and_ends_whole() {
    let script = "touch up; exec sleep 1000";
    let probe = "echo $$MARK >>asked; echo $$(id -u) >>asked; sleep 3456 & setsid sleep 3456 & test -e up";
    let slow = "sleep 3456; echo never";
    let more = |command: &str, rest: &str| {
        format!(
            "env = {{ MARK = \"mine\" }}\n{rest} = {{ exec = [\"/bin/sh\", \"-c\", \"{command}\"], \
             interval = \"100ms\", timeout = \"100ms\""
        )
    };
    let ready = more(probe, "ready") + " }\n";
    let live = more(slow, "live") + ", failures = 2, action = \"alert\" }\n";
    let d = Daemon::start(&(service("web", script, &ready) + &service("slow", script, &live)));
    d.wait_service("web", "readiness", is_ready);
    d.wait_service("slow", "an alert", |s| {
        s["probes"]["live"]["message"] == "its command did not end within 100ms"
    });
    wait_for("ten more questions", LATER, || (d.lines("asked").len() >= 20).then_some(()));
    let asked = d.lines("asked");
    let uid = d.service("web")["identity"]["uid"].to_string();
    assert_eq!((asked[0].as_str(), &asked[1]), ("mine", &uid));
    wait_for("what they left behind to go", LATER, || {
        (d.processes_with("sleep 3456").len() <= 4).then_some(())
    });
    let fds = || fs::read_dir(format!("/proc/{}/fd", d.keeper())).unwrap().count();
    let (before, seen) = (fds(), d.lines("asked").len());
    wait_for("ten more questions", LATER, || (d.lines("asked").len() >= seen + 20).then_some(()));
    assert!(fds() <= before + 6, "{} descriptors, and {before} before", fds());
    assert_eq!(d.service("slow")["restarts"], 0);
    d.shutdown();
}

#[test]
fn a_probes_last_words_are_shown() {
    let probe = "yes x | head -c 300000; echo; echo no such table; exit 3";
    let more = format!("ready = {{ exec = [\"/bin/sh\", \"-c\", \"{probe}\"], within = \"1h\" }}\n");
    let brief =
        "ready = { exec = [\"/bin/sh\", \"-c\", \"echo no such table; exit 3\"], interval = \"100ms\" }\n";
    let d = Daemon::start(
        &(service("web", "exec sleep 1000", &more) + &service("brief", "exec sleep 1000", brief)),
    );
    let of = |name: &str| d.wait_service(name, "a failure", |s| s["probes"]["ready"]["message"].is_string());
    for name in ["brief", "web"] {
        let message = of(name)["probes"]["ready"]["message"].clone();
        assert_eq!(message, "its command exited with status 3: no such table", "{name}");
    }
    d.shutdown();
}

#[test]
fn a_dependency_that_falls_ill_and_recovers_takes_its_dependents_along() {
    let db =
        "tell('READY=1')\nwhile not os.path.exists('die'): time.sleep(0.01)\nos.remove('die'); os._exit(1)";
    let web = service(
        "web",
        "until [ -e die-web ]; do sleep 0.05; done; rm die-web; exit 1",
        "requires = [\"db\"]\n",
    );
    let d = Setup {
        services: &(python("db", db, &format!("{NOTIFY}backoff = {{ delay = \"2s\" }}\n")) + &web),
        ..Setup::default()
    }
    .start();
    d.wait_service("web", "its start", |s| s["state"] == "running");
    let first = d.pid("web");
    touch(&d, "die");
    d.wait_service("db", "its end", |s| s["state"] == "backoff");
    touch(&d, "die-web");
    d.wait_service("web", "its turn", |s| s["state"] == "waiting");
    let s = d.wait_service("web", "its return", |s| s["state"] == "running" && s["pid"] != first);
    assert_eq!(s["restarts"], 1, "one start was enough: {s}");
    d.shutdown();
}

#[test]
fn the_table_of_one_and_the_probe_of_another_can_be_changed_as_it_runs() {
    let before = "ready = { notify = true }\n\
         live = { tcp = \"127.0.0.1:1\", action = \"alert\", interval = \"50ms\" }\n";
    let web = "tell('READY=1'); time.sleep(1000)";
    let d = Daemon::start(&python("web", web, before));
    let pid =
        d.wait_service("web", "an alert", |s| s["reason"] == "unhealthy: connection refused")["pid"].clone();
    d.write_config(&python("web", web, NOTIFY));
    d.ctl_ok(&["apply"]);
    let s = d.wait_service("web", "its new table", |s| s["probes"]["live"].is_null());
    assert_eq!((&s["pid"], s["reason"].as_str()), (&pid, Some("")), "{s}");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    d.shutdown();
}
