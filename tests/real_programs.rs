//! Programs that people really run, as config/examples has them: nginx, redis and postgres, each as its own user.
//! They are killed with SIGKILL and come back, reload, and stop leaving nothing.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, Setup, free_port, is_root, passwd, proc_status, signal, skip, wait_for, which};
use nix::sys::signal::Signal;
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// keepd with one of the examples, in which each `(old, new)` is replaced; `HOME` in `new` is a folder of `user`.
fn prepare(syscalls: &str, example: &str, user: (u32, u32), changes: &[(&str, &str)]) -> (Daemon, PathBuf) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples").join(example);
    let mut text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let defaults = format!("sandbox = {{ syscalls = \"{syscalls}\" }}");
    let d = Setup { defaults: &defaults, ..Setup::default() }.prepare();
    let home = d.path().join("data");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(user.0), Some(user.1)).unwrap();
    for (old, new) in changes {
        assert!(text.contains(old), "{example} has no `{old}` any more");
        text = text.replace(old, &new.replace("HOME", home.to_str().unwrap()));
    }
    // The hard limit of a test machine may be lower than that of a server.
    for limit in ["open-files = 65536", "open-files = 65535"] {
        text = text.replace(limit, "open-files = 4096");
    }
    d.write_config(&text);
    (d, home)
}

/// Connects and sends `say`; true as soon as the answer contains `hear`.
fn answers(port: u16, say: &[u8], hear: &str) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    if stream.write_all(say).is_err() {
        return false;
    }
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        heard.extend_from_slice(&buffer[..n]);
        if String::from_utf8_lossy(&heard).contains(hear) {
            return true;
        }
    }
    false
}

/// It answers; killed with -9 it comes back and answers; stopped it leaves nothing, and its port is free.
fn live_and_die(d: Daemon, name: &str, uid: u32, alive: impl Fn() -> bool) {
    let mut pid = d.wait_running(name);
    d.wait_service(name, "readiness, by its own word where it has one", |s| s["ready"] == true);
    wait_for(&format!("{name} to answer"), LATER, || alive().then_some(()));
    assert!(
        proc_status(pid, "Uid").starts_with(&format!("{uid}\t")),
        "{name} runs as {}",
        proc_status(pid, "Uid")
    );
    for _ in 0..3 {
        signal(pid, Signal::SIGKILL);
        let next = d.wait_service(name, "a successor", |s| s["state"] == "running" && s["pid"] != pid);
        pid = u32::try_from(next["pid"].as_u64().unwrap()).unwrap();
        wait_for(&format!("{name} to answer again"), LATER, || alive().then_some(()));
        assert_eq!(d.pid(name), pid, "{name} did not survive what its predecessor had left");
    }
    d.ctl_ok(&["stop", name]);
    let end = d.service(name)["last_exit"].clone();
    assert_eq!(end["code"], 0, "{name} was not stopped as it wants to be: {end}");
    let mut left = d.processes();
    left.retain(|pid| !common::command_line(*pid).contains("keepd.toml"));
    assert_eq!(left, [] as [u32; 0], "{name} left processes");
    assert!(!alive());
    d.ctl_ok(&["start", name]);
    wait_for(&format!("{name} to answer once more"), LATER, || alive().then_some(()));
    d.shutdown();
    assert!(!alive());
}

#[test]
fn nginx() {
    nginx_under("default");
}

#[test]
fn nginx_with_the_calls_of_a_service() {
    nginx_under("service");
}

fn nginx_under(syscalls: &str) {
    let (Some(_), Some(user), true) = (which("nginx"), passwd("www-data"), is_root()) else {
        return skip("needs root and nginx");
    };
    let port = free_port();
    let (mut d, home) = prepare(
        syscalls,
        "nginx.toml",
        user,
        &[
            (
                "\"-g\", \"daemon off;\"",
                "\"-c\", \"HOME/nginx.conf\", \"-e\", \"stderr\", \"-g\", \"daemon off;\"",
            ),
            ("/usr/sbin/nginx -", "/usr/sbin/nginx -c HOME/nginx.conf -e stderr -"),
        ],
    );
    let folder = home.display();
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|n| format!("{n}_temp_path {folder}/{n};\n"))
        .collect();
    let conf = |words: &str| {
        let text = format!(
            "user www-data;\npid {folder}/nginx.pid;\nerror_log stderr;\nworker_processes 2;\nevents {{}}\n\
             http {{\naccess_log off;\nsendfile on;\naio threads;\n{temps}server {{\nlisten 127.0.0.1:{port};\n\
             location / {{ return 200 \"{words}\"; }}\nlocation /file {{ root {folder}; }}\n}}\n}}\n"
        );
        fs::write(home.join("nginx.conf"), text).unwrap();
    };
    conf("hello from nginx");
    fs::write(home.join("file"), "x".repeat(1 << 20) + "the end of the file").unwrap();
    d.launch();
    d.await_api();
    let ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    wait_for("nginx to answer", LATER, || answers(port, ask, "hello from nginx").then_some(()));
    // By sendfile, or by a pool of threads.
    let file = b"GET /file HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(answers(port, file, "the end of the file"));
    let pid = d.pid("nginx");
    // One that answers may have come up before the other.
    let workers = wait_for("both workers", LATER, || {
        Some(d.processes_with("nginx: worker")).filter(|workers| workers.len() == 2)
    });
    for worker in workers {
        assert!(proc_status(worker, "Uid").starts_with(&format!("{}\t", user.0)), "a worker is not www-data");
    }

    conf("hello again from nginx");
    d.ctl_ok(&["reload", "nginx"]);
    wait_for("the new words", LATER, || answers(port, ask, "hello again").then_some(()));
    fs::write(home.join("nginx.conf"), "broken\n").unwrap();
    d.ctl_fails(1, &["reload", "nginx"]);
    // Workers of before the reload may still be going, and closing what they accept.
    wait_for("the new words again", LATER, || answers(port, ask, "hello again").then_some(()));
    assert_eq!(d.pid("nginx"), pid);
    conf("hello from nginx");
    live_and_die(d, "nginx", 0, || answers(port, ask, "hello"));
}

#[test]
fn redis() {
    redis_under("default");
}

#[test]
fn redis_with_the_calls_of_a_service() {
    redis_under("service");
}

fn redis_under(syscalls: &str) {
    let (Some(_), Some(user), true) = (which("redis-server"), passwd("redis"), is_root()) else {
        return skip("needs root and redis-server");
    };
    let port = free_port();
    let changes = [("/etc/redis/redis.conf", "HOME/redis.conf"), ("\"/var/lib/redis\"", "\"HOME\"")];
    let (mut d, home) = prepare(syscalls, "redis.toml", user, &changes);
    let conf = format!("bind 127.0.0.1\nport {port}\ndir {}\nappendonly yes\n", home.display());
    fs::write(home.join("redis.conf"), conf).unwrap();
    d.launch();
    d.await_api();
    wait_for("redis to answer", LATER, || answers(port, b"PING\r\n", "+PONG").then_some(()));
    assert!(answers(port, b"SET kept yes\r\n", "+OK"));
    // A child writes the whole of it to a file.
    assert!(answers(port, b"BGSAVE\r\n", "+Background"));
    wait_for("the child's file", LATER, || home.join("dump.rdb").exists().then_some(()));
    live_and_die(d, "redis", user.0, || answers(port, b"GET kept\r\n", "yes"));
}

#[test]
fn postgres() {
    postgres_under("default");
}

#[test]
fn postgres_with_the_calls_of_a_service() {
    postgres_under("service");
}

fn postgres_under(syscalls: &str) {
    let (Some(bin), Some(user), true) = (postgres_bin(), passwd("postgres"), is_root()) else {
        return skip("needs root and postgresql");
    };
    let port = free_port();
    let program = bin.join("postgres");
    let (mut d, home) = prepare(
        syscalls,
        "postgres.toml",
        user,
        &[
            ("/usr/lib/postgresql/15/bin/postgres", program.to_str().unwrap()),
            ("/etc/postgresql/15/main/postgresql.conf", "HOME/db/postgresql.conf"),
            ("/var/lib/postgresql/15/main", "HOME/db"),
            ("directory = \"/var/lib/postgresql\"", "directory = \"HOME\""),
        ],
    );
    initdb(&bin, user, &home, port);
    d.launch();
    d.await_api();
    // A start-up packet of user and database postgres. A server that takes it answers `R` and, in the end,
    // `ReadyForQuery`; one that is still recovering sends an error with the word FATAL.
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    // Then a query that writes, has it brought to the disk, and is shared out among processes.
    let query = "CREATE TABLE IF NOT EXISTS kept AS SELECT generate_series(1, 20000) AS n; CHECKPOINT; \
                 SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; \
                 SELECT 'the sum is ' || sum(n) FROM kept\0";
    let size = u32::try_from(query.len() + 4).unwrap().to_be_bytes();
    let hello = [&length[..], body, b"Q", &size[..], query.as_bytes()].concat();
    live_and_die(d, "postgres", user.0, || answers(port, &hello, "the sum is 200010000"));
}

/// Interpreters that use threads, children, sockets and files, under either list of calls.
#[test]
fn interpreters() {
    let python = "import asyncio, http.server, multiprocessing, socket, sqlite3, subprocess, tempfile, threading\n\
                  import concurrent.futures, urllib.request\n\
                  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)\n\
                  threading.Thread(target=server.serve_forever, daemon=True).start()\n\
                  assert urllib.request.urlopen('http://127.0.0.1:%d/' % server.server_port).status == 200\n\
                  assert subprocess.check_output(['/bin/echo', 'hi']) == b'hi\\n'\n\
                  a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n\
                  with tempfile.TemporaryDirectory() as d:\n\
                  \x20   base = sqlite3.connect(d + '/base'); base.execute('create table t(n)'); base.commit()\n\
                  with multiprocessing.Pool(2) as p: assert p.map(abs, [-1, -2]) == [1, 2]\n\
                  with concurrent.futures.ThreadPoolExecutor() as p: assert list(p.map(abs, [-3])) == [3]\n\
                  async def child():\n\
                  \x20   return await (await asyncio.create_subprocess_exec('/bin/true')).wait()\n\
                  assert asyncio.run(child()) == 0\n\
                  print('all well', flush=True)\n";
    let node = "const c = require('child_process'), f = require('fs'), h = require('http'), o = require('os');\n\
                const { Worker } = require('worker_threads'), { pbkdf2 } = require('crypto');\n\
                const done = (f) => new Promise((good, bad) => f((e, v) => e ? bad(e) : good(v)));\n\
                (async () => {\n\
                await done((d) => c.execFile('/bin/echo', ['hi'], d));\n\
                const dir = f.mkdtempSync(o.tmpdir() + '/keepd-'), file = dir + '/x';\n\
                f.writeFileSync(file, 'x'); f.fsyncSync(f.openSync(file)); f.rmSync(dir, { recursive: true });\n\
                await Promise.all([1, 2, 3, 4].map(() => done((d) => pbkdf2('a', 'b', 1000, 64, 'sha512', d))));\n\
                await new Promise((d) => new Worker('0', { eval: true }).on('exit', d));\n\
                const s = h.createServer((q, r) => r.end('hi')).listen(0, '127.0.0.1');\n\
                await new Promise((d) => s.on('listening', d));\n\
                const r = await new Promise((d) => h.get('http://127.0.0.1:' + s.address().port, d));\n\
                if (r.statusCode !== 200) throw 'no answer';\n\
                console.log('all well'); process.exit(0);\n\
                })();\n";
    let programs = [("/usr/bin/python3", "-c", python), ("/usr/bin/node", "-e", node)];
    let mut services = String::new();
    for (n, (program, flag, script)) in programs.iter().filter(|p| Path::new(p.0).exists()).enumerate() {
        for syscalls in ["default", "service"] {
            services += &format!(
                "[service.{syscalls}{n}]\ncommand = [\"{program}\", \"{flag}\", {script:?}]\nrestart = \"never\"\n\
                 directory = \"/\"\nsandbox = {{ syscalls = \"{syscalls}\" }}\n"
            );
        }
    }
    if services.is_empty() {
        return skip("needs /usr/bin/python3 or /usr/bin/node");
    }
    let d = Daemon::start(&services);
    for list in d.get("/v1/services")["services"].as_array().unwrap() {
        let name = list["name"].as_str().unwrap();
        let s = d.wait_service(name, "its end", |s| !s["last_exit"].is_null());
        let said = fs::read_to_string(s["log"]["file"].as_str().unwrap()).unwrap_or_default();
        assert_eq!(s["last_exit"]["code"], 0, "{name}: {s}\n{said}");
        wait_for("its words", LATER, || {
            let said = fs::read_to_string(s["log"]["file"].as_str().unwrap()).unwrap_or_default();
            said.contains("all well").then_some(())
        });
    }
    d.shutdown();
}

/// An empty database in the folder `db`, that listens on this port.
fn initdb(bin: &Path, user: (u32, u32), home: &Path, port: u16) {
    #[allow(clippy::disallowed_methods)]
    let mut initdb = Command::new(bin.join("initdb"));
    initdb.args(["--no-sync", "--auth=trust", "-D"]).arg(home.join("db")).current_dir(home);
    let done = initdb.uid(user.0).gid(user.1).output().unwrap();
    assert!(done.status.success(), "{}", common::text(&done));
    let mut conf = fs::OpenOptions::new().append(true).open(home.join("db/postgresql.conf")).unwrap();
    let more = format!(
        "\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nshared_buffers = 16MB\n",
        home.display()
    );
    conf.write_all(more.as_bytes()).unwrap();
}

fn postgres_bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = versions.filter_map(|v| Some(v.ok()?.path().join("bin")));
    bins.filter(|b| b.join("initdb").exists() && b.join("postgres").exists()).max()
}

/// The stack, started, and the port in front of it.
fn stack(bin: &Path, user: (u32, u32), redis: (u32, u32), www: (u32, u32)) -> (Daemon, u16) {
    let [db, cache, web, front] = [(); 4].map(|()| free_port());
    let text = |n: u16| n.to_string();
    let (mut d, home) = prepare(
        "default",
        "stack/stack.toml",
        user,
        &[
            ("/usr/lib/postgresql/15/bin", bin.to_str().unwrap()),
            ("/etc/postgresql/15/main/postgresql.conf", "HOME/db/postgresql.conf"),
            ("/var/lib/postgresql/15/main", "HOME/db"),
            ("directory = \"/var/lib/postgresql\"", "directory = \"HOME\""),
            // Long enough for everybody to notice.
            (
                "stop-signal = \"SIGINT\"",
                "stop-signal = \"SIGINT\"\nbackoff = { delay = \"8s\", max = \"8s\" }",
            ),
            ("/etc/redis/redis.conf", "HOME/redis/redis.conf"),
            ("\"/var/lib/redis\"", "\"HOME/redis\""),
            ("/srv/stack", "HOME/app"),
            ("5432", &text(db)),
            ("6379", &text(cache)),
            ("3000", &text(web)),
            ("8080", &text(front)),
            ("within = \"30s\"", "within = \"60s\""),
        ],
    );
    let folder = home.display().to_string();
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    initdb(bin, user, &home, db);
    for (name, owner) in [("redis", redis), ("app", www)] {
        fs::create_dir(home.join(name)).unwrap();
        chown(home.join(name), Some(owner.0), Some(owner.1)).unwrap();
    }
    fs::write(home.join("redis/redis.conf"), format!("bind 127.0.0.1\nport {cache}\nsave \"\"\n")).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/stack");
    for script in ["web.py", "worker.py"] {
        fs::copy(example.join(script), home.join("app").join(script)).unwrap();
    }
    let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|n| format!("{n}_temp_path {folder}/app/{n};\n"))
        .collect();
    let conf = fs::read_to_string(example.join("nginx.conf")).unwrap();
    let conf = conf.replace("/run/stack-nginx.pid", &format!("{folder}/app/nginx.pid"));
    let conf = conf.replace("8080", &text(front)).replace("3000", &text(web));
    fs::write(home.join("app/nginx.conf"), conf.replace("http {", &format!("http {{\n{temps}"))).unwrap();
    d.launch();
    d.await_api();
    (d, front)
}

/// The stack of five services starts in order, loses its database, and comes back with every step told.
#[test]
fn a_stack_starts_in_order_and_comes_back_from_the_loss_of_its_database() {
    let (Some(bin), Some(user), Some(redis), Some(www), true) =
        (postgres_bin(), passwd("postgres"), passwd("redis"), passwd("www-data"), is_root())
    else {
        return skip("needs root, postgresql, redis and www-data");
    };
    let programs = ["/usr/bin/python3", "/usr/bin/redis-server", "/usr/sbin/nginx"];
    if let Some(missing) = programs.iter().find(|p| !Path::new(p).exists()) {
        return skip(&format!("needs {missing}"));
    }
    let (d, front) = stack(&bin, user, redis, www);
    let all = ["postgres", "redis", "web", "worker", "nginx"];
    let ready = |d: &Daemon| {
        for name in all {
            d.wait_service(name, "to be ready", |s| s["state"] == "running" && s["ready"] == true);
        }
    };
    ready(&d);
    let ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(answers(front, ask, "all well"));
    let events = |d: &Daemon| -> Vec<serde_json::Value> {
        d.ctl_ok(&["events", "--json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let begun = events(&d);
    let at = |kind: &str, name: &str, state: Option<&str>| {
        let fits = |e: &&serde_json::Value| {
            e["kind"] == kind && e["service"] == name && state.is_none_or(|s| e["state"] == s)
        };
        begun.iter().find(fits).unwrap_or_else(|| panic!("no {kind} of {name} {state:?}: {begun:#?}"))["id"]
            .clone()
    };
    let id = |v: serde_json::Value| v.as_u64().unwrap();
    for (first, then) in
        [("postgres", "web"), ("redis", "web"), ("postgres", "worker"), ("redis", "worker"), ("web", "nginx")]
    {
        let (ready, starts) = (id(at("ready", first, None)), id(at("state", then, Some("starting"))));
        assert!(ready < starts, "{then} was started before {first} was ready");
    }

    let nginx = d.pid("nginx");
    let lost = begun.last().unwrap()["id"].as_u64().unwrap();
    signal(d.pid("postgres"), Signal::SIGKILL);
    d.wait_service("web", "to be not ready", |s| s["ready"] == false);
    wait_for("postgres to have a dossier", LATER, || {
        let why = d.get("/v1/services/postgres/why");
        (why["dossiers"][0]["exit"]["signal"] == "SIGKILL").then_some(())
    });
    let told = wait_for("every step to be told", LATER, || {
        let told: Vec<_> = events(&d).into_iter().filter(|e| e["id"].as_u64().unwrap() > lost).collect();
        let has = |kind: &str, name: &str| told.iter().any(|e| e["kind"] == kind && e["service"] == name);
        let steps = has("incident", "postgres") && has("ready", "postgres") && has("incident", "worker");
        (steps && has("ready", "web")).then_some(told)
    });
    ready(&d);
    assert!(answers(front, ask, "all well"));
    let of = |kind: &str, name: &str| {
        told.iter().find(|e| e["kind"] == kind && e["service"] == name).unwrap()["message"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(of("incident", "postgres").contains("was killed by SIGKILL"), "{told:#?}");
    let why = d.ctl_ok(&["why", "worker"]);
    assert!(
        why.contains("cannot reach DATABASE") && why.contains("postgres, which it needs, was not ready"),
        "{why}"
    );
    assert_eq!(d.pid("nginx"), nginx, "nobody in front has noticed");
    assert_eq!(d.service("worker")["consecutive_failures"], 0, "it was not its own failure");
    d.shutdown();
}
