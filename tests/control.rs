//! The control socket: a server and its clients, with a scripted service where the engine would be.

use redis_duplex::{
    control::{
        Client, ClientError,
        codec::{decode, encode, frames},
        listener::{EngineLock, ListenError, Listener, MAX_SOCKET_PATH, holder},
        protocol::{Answer, Call, Failure, FailureKind, PROTOCOL_VERSION, Reply, Request},
        server,
        service::Service,
    },
    model::{EngineStatus, Event, EventKind, ExitCode, Severity},
};
use std::{
    future::Future,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::UnixStream,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Far more than any of these needs; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// Answers by script: `Pause` hangs until it is released or dropped, `Events` never ends, `Forget` forgets to answer.
#[derive(Default)]
struct Script {
    calls: Mutex<Vec<String>>,
    release: Notify,
    begun: Notify,
    /// Told when a hanging request's future is dropped.
    dropped: Arc<Notify>,
}

struct TellDrop(Arc<Notify>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        at_ms: 1,
        job: "orders".into(),
        direction: None,
        severity: Severity::Info,
        kind: EventKind::JobStarted,
        text: "x".into(),
        conflict: None,
    }
}

impl Service for Script {
    fn call(&self, request: Request, replies: mpsc::Sender<Reply>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.calls.lock().unwrap().push(format!("{request:?}"));
            match request {
                Request::Status { .. } => {
                    let status = EngineStatus { version: 1, engine_pid: 42, jobs: Vec::new() };
                    _ = replies.send(Reply::Status { status }).await;
                }
                Request::Pause { .. } => {
                    let _told = TellDrop(self.dropped.clone());
                    self.begun.notify_one();
                    self.release.notified().await;
                    _ = replies.send(Reply::Done).await;
                }
                Request::Events { .. } => {
                    let _told = TellDrop(self.dropped.clone());
                    for seq in 1.. {
                        if replies.send(Reply::Event { event: event(seq) }).await.is_err() {
                            return;
                        }
                        if seq == 3 {
                            self.release.notified().await;
                        }
                    }
                }
                Request::Stop { name } => {
                    let error = Failure {
                        kind: FailureKind::Usage,
                        message: format!("no job is called {name:?}"),
                        remedy: "it knows: orders".into(),
                    };
                    _ = replies.send(Reply::Error { error }).await;
                }
                _ => {}
            }
        })
    }
}

struct Stage {
    script: Arc<Script>,
    socket: PathBuf,
    stop: CancellationToken,
    server: JoinHandle<()>,
    dir: TempDir,
}

impl Stage {
    fn listener(dir: &TempDir) -> Result<Listener, ListenError> {
        let lock = EngineLock::take(&dir.path().join("state/engine.lock"))?;
        Listener::bind(&dir.path().join("run/engine.sock"), lock)
    }

    async fn new() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let script = Arc::new(Script::default());
        let listener = Stage::listener(&dir).unwrap();
        let socket = listener.path().to_owned();
        let stop = CancellationToken::new();
        let server = tokio::spawn(server::serve(listener, script.clone(), stop.clone()));
        Stage { script, socket, stop, server, dir }
    }

    async fn client(&self) -> Client {
        soon("connect", Client::connect(&self.socket, false)).await.unwrap()
    }

    async fn end(self) -> TempDir {
        self.stop.cancel();
        soon("the server ends", self.server).await.unwrap();
        self.dir
    }
}

#[tokio::test]
async fn a_client_asks_and_is_answered_or_refused() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    assert_eq!(client.engine().pid, std::process::id());
    assert_eq!(client.status(None).await.unwrap().engine_pid, 42);
    let error = client.stop("carts").await.unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.remedy().as_str()),
        ("no job is called \"carts\"", "it knows: orders")
    );
    assert_eq!(error.exit_code(), ExitCode::Usage);
    let error = client.forget("orders", false).await.unwrap_err();
    assert_eq!(error.to_string(), "the engine gave no answer");
    stage.end().await;
}

#[tokio::test]
async fn the_places_are_for_their_owner_alone() {
    let stage = Stage::new().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&stage.socket), 0o600);
    assert_eq!(mode(stage.socket.parent().unwrap()), 0o700);
    let lock = stage.dir.path().join("state/engine.lock");
    assert_eq!((mode(&lock), mode(lock.parent().unwrap())), (0o600, 0o700));
    let found = holder(&lock).unwrap();
    assert_eq!((found.pid, &found.socket), (std::process::id(), &stage.socket));
    stage.end().await;
}

#[tokio::test]
async fn another_version_is_told_before_anything_else() {
    let stage = Stage::new().await;
    let mut raw = frames(UnixStream::connect(&stage.socket).await.unwrap());
    let hello = Call { id: 9, request: Request::Hello { version: PROTOCOL_VERSION + 1, readonly: false } };
    futures::SinkExt::send(&mut raw, encode(&hello).unwrap()).await.unwrap();
    let frame = soon("an answer", futures::StreamExt::next(&mut raw)).await.unwrap().unwrap();
    let answer: Answer = decode(&frame).unwrap();
    assert_eq!((answer.id, answer.last), (9, true));
    let Reply::Error { error } = answer.reply else { panic!("{:?}", answer.reply) };
    assert_eq!(error.kind, FailureKind::Version);
    assert!(error.remedy.contains(&format!("kill {}", std::process::id())), "{}", error.remedy);
    assert!(soon("the end", futures::StreamExt::next(&mut raw)).await.is_none(), "the connection goes on");
    stage.end().await;
}

#[tokio::test]
async fn a_client_tells_an_engine_of_another_version() {
    let (ours, theirs) = tokio::io::duplex(4096);
    let engine = tokio::spawn(async move {
        let mut raw = frames(theirs);
        let call: Call = decode(&futures::StreamExt::next(&mut raw).await.unwrap().unwrap()).unwrap();
        let reply = Reply::Hello { version: 99, engine_version: "9.9.9".into(), pid: 7 };
        let answer = Answer { id: call.id, last: true, reply };
        futures::SinkExt::send(&mut raw, encode(&answer).unwrap()).await.unwrap();
    });
    let Err(error) = soon("the greeting", Client::over(ours, false)).await else { panic!("it was taken") };
    assert!(matches!(&error, ClientError::Version { .. }), "{error:?}");
    assert!(error.to_string().contains("9.9.9") && error.remedy().contains("kill 7"), "{error}");
    assert_eq!(error.exit_code(), ExitCode::NoEngine);
    engine.await.unwrap();
}

#[tokio::test]
async fn what_does_not_begin_with_hello_or_is_no_frame_is_shut_out() {
    let stage = Stage::new().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0\0\0\x02{}", b"\xff\xff\xff\xff"] {
        let mut stream = UnixStream::connect(&stage.socket).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
        let mut rest = Vec::new();
        // Ends with an error or without: it ends.
        _ = soon("the end", tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest)).await;
    }
    let mut raw = frames(UnixStream::connect(&stage.socket).await.unwrap());
    let call = Call { id: 1, request: Request::Shutdown };
    futures::SinkExt::send(&mut raw, encode(&call).unwrap()).await.unwrap();
    let answer: Answer =
        decode(&soon("an answer", futures::StreamExt::next(&mut raw)).await.unwrap().unwrap()).unwrap();
    assert!(matches!(answer.reply, Reply::Error { error } if error.kind == FailureKind::Usage));
    assert_eq!(stage.script.calls.lock().unwrap().len(), 0);
    assert!(stage.client().await.status(None).await.is_ok(), "the others are served on");
    stage.end().await;
}

#[tokio::test]
async fn a_readonly_client_can_watch_and_nothing_else() {
    let stage = Stage::new().await;
    let client = Client::connect(&stage.socket, true).await.unwrap();
    assert!(client.status(None).await.is_ok());
    for error in [client.stop("orders").await.unwrap_err(), client.shutdown().await.unwrap_err()] {
        assert!(matches!(&error, ClientError::Refused(f) if f.kind == FailureKind::ReadOnly), "{error:?}");
        assert!(error.remedy().contains("--readonly"));
    }
    assert_eq!(stage.script.calls.lock().unwrap().len(), 1, "a refused request reached the engine");
    stage.end().await;
}

#[tokio::test]
async fn requests_of_one_connection_run_side_by_side() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { client.pause("orders").await }
    });
    soon("the slow request", stage.script.begun.notified()).await;
    assert!(soon("a quick one beside it", client.status(None)).await.is_ok());
    stage.script.release.notify_one();
    soon("the slow one", slow).await.unwrap().unwrap();
    stage.end().await;
}

#[tokio::test]
async fn two_clients_do_not_see_each_other() {
    let stage = Stage::new().await;
    let (one, other) = (stage.client().await, stage.client().await);
    let mut events = one.events(None, 0, 10, true).await.unwrap();
    assert_eq!(soon("an event", events.next()).await.unwrap().unwrap().seq, 1);
    assert!(soon("the other's", other.status(None)).await.is_ok());
    drop(one);
    drop(events);
    soon("the stream's end", stage.script.dropped.notified()).await;
    assert!(other.status(None).await.is_ok());
    stage.end().await;
}

#[tokio::test]
async fn a_stream_comes_in_order_and_ends_when_it_is_dropped() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let mut events = client.events(Some("orders"), 0, 10, true).await.unwrap();
    for seq in 1..=3 {
        assert_eq!(soon("an event", events.next()).await.unwrap().unwrap().seq, seq);
    }
    drop(events);
    soon("the request's end in the engine", stage.script.dropped.notified()).await;
    assert!(client.status(None).await.is_ok(), "the connection goes on");
    stage.end().await;
}

#[tokio::test]
async fn cancel_ends_a_request_with_done() {
    let stage = Stage::new().await;
    let mut raw = frames(UnixStream::connect(&stage.socket).await.unwrap());
    for (id, request) in [
        (0, Request::Hello { version: PROTOCOL_VERSION, readonly: false }),
        (5, Request::Pause { name: "orders".into() }),
        (5, Request::Status { job: None }),
        (6, Request::Cancel { id: 5 }),
        (7, Request::Cancel { id: 12345 }),
    ] {
        let begins = matches!(request, Request::Pause { .. });
        futures::SinkExt::send(&mut raw, encode(&Call { id, request }).unwrap()).await.unwrap();
        if begins {
            // Cancelled before it has begun, it would have nothing to drop.
            soon("the request", stage.script.begun.notified()).await;
        }
    }
    let mut seen = Vec::new();
    for _ in 0..5 {
        let frame = soon("an answer", futures::StreamExt::next(&mut raw)).await.unwrap().unwrap();
        let answer: Answer = decode(&frame).unwrap();
        assert!(answer.last);
        seen.push(match answer.reply {
            Reply::Hello { .. } => format!("{} hello", answer.id),
            Reply::Done => format!("{} done", answer.id),
            Reply::Error { error } => format!("{} {}", answer.id, error.message),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen.remove(0), "0 hello");
    seen.sort();
    assert_eq!(seen, ["5 done", "5 this id is in use", "6 done", "7 done"]);
    soon("the drop", stage.script.dropped.notified()).await;
    stage.end().await;
}

#[tokio::test]
async fn when_the_engine_ends_its_clients_are_told() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let mut events = client.events(None, 0, 10, true).await.unwrap();
    for _ in 0..3 {
        soon("an event", events.next()).await.unwrap().unwrap();
    }
    let socket = stage.socket.clone();
    let dir = stage.end().await;
    // The request is ended in order where there was time for it, else the connection is lost; then nothing.
    match soon("the end", events.next()).await {
        None | Some(Err(ClientError::Lost)) => {}
        Some(other) => panic!("{other:?}"),
    }
    let error = soon("a refusal", client.status(None)).await.unwrap_err();
    assert!(matches!(error, ClientError::Lost), "{error:?}");
    assert!(!socket.exists(), "the socket was left behind");
    let Err(error) = Client::connect(&socket, false).await else { panic!("connected to nothing") };
    assert!(matches!(error, ClientError::NoEngine { .. }));
    assert_eq!(error.exit_code(), ExitCode::NoEngine);
    assert!(error.remedy().contains("duplex engine"));
    drop(dir);
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced_and_a_live_engine_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("run/engine.sock");
    std::fs::create_dir(dir.path().join("run")).unwrap();
    // given: what an engine leaves that was killed
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    assert!(matches!(Client::connect(&socket, false).await, Err(ClientError::NoEngine { .. })));
    // when, then
    let first = Stage::listener(&dir).unwrap();
    let Err(error) = Stage::listener(&dir) else { panic!("two engines") };
    assert!(matches!(error, ListenError::Running { pid: Some(pid) } if pid == std::process::id()), "{error}");
    assert!(socket.exists(), "the live engine's socket was removed");
    drop(first);
    assert!(!socket.exists());
    drop(Stage::listener(&dir).unwrap());
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let lock = EngineLock::take(&dir.path().join("engine.lock")).unwrap();
    let path = dir.path().join("x".repeat(MAX_SOCKET_PATH));
    let error = Listener::bind(&path, lock).unwrap_err();
    assert!(matches!(&error, ListenError::PathTooLong { .. }), "{error}");
    assert!(error.to_string().contains("bytes long") && error.remedy().contains("DUPLEX_HOME"));
}

#[tokio::test]
async fn the_same_works_over_a_pipe() {
    let script = Arc::new(Script::default());
    let (ours, theirs) = tokio::io::duplex(4096);
    let stop = CancellationToken::new();
    let server = tokio::spawn(server::connection(theirs, script.clone(), stop.clone()));
    let client = soon("the greeting", Client::over(ours, false)).await.unwrap();
    assert_eq!(client.status(None).await.unwrap().engine_pid, 42);
    assert!(!client.is_lost());
    drop(client);
    soon("the server's end", server).await.unwrap();
}
