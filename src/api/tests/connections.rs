//! Callers that are slow, many, or gone: what each costs the others.

use super::*;

#[tokio::test]
async fn bodies_end_at_64_kib() {
    let world = World::new();
    world.services(&[("web", "running")]);
    let most = 64 * 1024;
    world.post("/v1/services/web/signal", &" ".repeat(most)).await.problem(422);
    world.post("/v1/services/web/signal", &" ".repeat(most + 1)).await.problem(413);
    // Whoever sends first and listens then gets the answer as well.
    world.post("/v1/services/web/signal", &" ".repeat(4 << 20)).await.problem(413);
    // Without a length in the head it is found out on the way; one without end is broken off.
    let mut raw = world.connect(ADMIN);
    raw.write_all(b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    let endless = async { while raw.write_all(&chunk).await.is_ok() {} };
    timeout(DEADLINE, endless).await.expect("an endless body is taken");
    // Asked first, the daemon does not even let it come.
    let mut raw = world.connect(ADMIN);
    let head = b"POST /v1/apply HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 65537\r\n\r\n";
    raw.write_all(head).await.unwrap();
    let mut answer = [0; 12];
    timeout(DEADLINE, raw.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_caller_that_goes_away_is_forgotten() {
    let world = World::new();
    world.services(&[("slow", "starting")]);
    let mut raw = world.connect(ADMIN);
    raw.write_all(b"POST /v1/services/slow/start HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let arrived = async {
        loop {
            if let Some(reply) = world.kept.lock().unwrap().pop() {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut reply = timeout(DEADLINE, arrived).await.unwrap();
    assert!(!reply.is_closed());
    drop(raw);
    timeout(DEADLINE, reply.closed()).await.expect("the call outlived its caller");
}

#[tokio::test]
async fn a_slow_head_costs_its_own_connection_only() {
    let world = World::with(Limits { head: Duration::from_millis(50), ..PATIENT });
    let mut slow = world.connect(ADMIN);
    slow.write_all(b"GET /v1/status HTTP/1.1\r\nx: ").await.unwrap();
    let idle = &mut world.connect(ADMIN);
    assert_eq!(world.get("/v1/status").await.status, 200);
    for stream in [&mut slow, idle] {
        let mut rest = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the connection is kept").unwrap();
    }
}

#[tokio::test]
async fn a_slow_body_is_answered_408() {
    let world = World::with(Limits { body: Duration::from_millis(50), ..PATIENT });
    let mut slow = world.connect(ADMIN);
    slow.write_all(b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx").await.unwrap();
    let mut head = [0; 12];
    timeout(DEADLINE, slow.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 408");
}

#[tokio::test]
async fn who_does_not_read_is_given_up() {
    let world = World::with(Limits { stall: Duration::from_millis(50), ..PATIENT });
    let description = "x".repeat(8 << 20);
    let base = wire::Service { name: "web".into(), description, ..wire::Service::default() };
    let services = vec![Arc::new(View { base: base.into(), ..View::default() })];
    world
        .snapshot
        .send_replace(Arc::new(Snapshot { services: services.into_iter().collect(), ..Snapshot::default() }));
    let (mut stuck, theirs) = UnixStream::pair().unwrap();
    let served = tokio::spawn(converse(theirs, peer(ADMIN), world.context.clone()));
    stuck.write_all(b"GET /v1/services HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    timeout(DEADLINE, served).await.expect("a stuck reader holds its connection").unwrap();
    let mut got = Vec::new();
    // Part of the answer, then the end.
    let _ = stuck.read_to_end(&mut got).await;
    assert!(got.len() < 8 << 20);
}

#[tokio::test]
async fn above_the_cap_a_connection_is_refused_at_once() {
    let world = World::new();
    let path = world.dir.path().join("api.sock");
    let listener = UnixListener::from_std(crate::api::bind(&path).unwrap()).unwrap();
    let (handle, limits) = (world.context.handle.clone(), Limits { connections: 2, ..PATIENT });
    // Whoever runs the tests is an admin here.
    let rights = Rights { admins: vec![Principal::Everyone], ..Rights::default() };
    let rights = Arc::new(rights);
    let server = tokio::spawn(accept(listener, Context { handle, rights, limits }));
    let ask = async |stream: &mut UnixStream| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        timeout(DEADLINE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        String::from_utf8(head.into()).unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        assert_eq!(ask(&mut stream).await, "HTTP/1.1 200");
        held.push(stream);
    }
    let mut third = UnixStream::connect(&path).await.unwrap();
    let mut text = String::new();
    timeout(DEADLINE, third.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    // A place that becomes free is given again.
    drop(held.pop());
    timeout(DEADLINE, async {
        loop {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            if stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {
                let mut head = [0; 12];
                if stream.read_exact(&mut head).await.is_ok() && &head == b"HTTP/1.1 200" {
                    return;
                }
            }
        }
    })
    .await
    .expect("a place was lost");
    server.abort();
}
