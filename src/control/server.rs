//! The engine's end of the control socket.
//!
//! ```text
//! socket ── accept ──▶ connection ──▶ reader: Hello, then one task a request ──▶ Service
//!                                     writer: answers of all requests, in the order in which they come
//! ```
//! A connection's requests run side by side and share one writer. A client that does not read stalls only itself:
//! a frame that can't be written within [`WRITE_DEADLINE`] ends its connection.

use super::{
    codec::{self, Frames},
    listener::Listener,
    protocol::{Answer, Call, Failure, FailureKind, PROTOCOL_VERSION, Reply, Request},
    service::Service,
};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use std::{collections::HashMap, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A connection that has not said Hello by then is closed.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);
/// A client that takes no frame for this long is gone.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Requests of one connection that may run at a time; a console needs about ten.
const MAX_REQUESTS: usize = 64;
/// Connections at a time; each costs two tasks.
const MAX_CONNECTIONS: usize = 64;
/// Answers that wait for the writer.
const QUEUE: usize = 64;

/// Serves the socket until `stop`; returns when the connections have been closed, the answers that were ready sent.
pub async fn serve(listener: Listener, service: Arc<dyn Service>, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let places = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = tokio::select! {
            _ = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: wait for some to be closed instead of spinning.
                    tracing::warn!(%error, "can't accept a control connection");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            },
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("{MAX_CONNECTIONS} control connections are open; one more was refused");
            continue;
        };
        let (service, stop) = (service.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, service, stop).await;
            drop(place);
        });
    }
    tasks.close();
    if timeout(Duration::from_secs(5), tasks.wait()).await.is_err() {
        tracing::warn!("control connections did not end in time; left to themselves");
    }
}

/// Serves one byte stream until it ends or `stop`. The in-process mode gives it one end of a pipe.
pub async fn connection<S>(stream: S, service: Arc<dyn Service>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut frames = codec::frames(stream);
    let readonly = tokio::select! {
        _ = stop.cancelled() => return,
        hello = timeout(HELLO_DEADLINE, hello(&mut frames)) => match hello {
            Ok(Ok(readonly)) => readonly,
            Ok(Err(error)) => return tracing::debug!(%error, "a control connection ended before its Hello"),
            Err(_) => return tracing::debug!("a control connection said no Hello"),
        },
    };
    let (sink, mut source) = frames.split();
    let (answers, queue) = mpsc::channel(QUEUE);
    let ended = stop.child_token();
    let writer = tokio::spawn(write(sink, queue, ended.clone()));
    let running = Running { tasks: Arc::default(), answers, service, tracker: TaskTracker::new(), readonly };
    loop {
        let frame = tokio::select! {
            _ = ended.cancelled() => break,
            frame = source.next() => frame,
        };
        let call = match frame {
            None => break,
            Some(Err(error)) => Err(error),
            Some(Ok(frame)) => codec::decode::<Call>(&frame),
        };
        match call {
            Ok(call) => running.begin(call).await,
            Err(error) => {
                // The stream may be out of step: say why and end it.
                let error = fail(FailureKind::Usage, format!("not a request: {error}"), "use a client of this version");
                _ = running.answers.send(Answer { id: 0, last: true, reply: Reply::Error { error } }).await;
                break;
            }
        }
    }
    for token in running.tasks.lock().await.values() {
        token.cancel();
    }
    running.tracker.close();
    let Running { answers, tracker, .. } = running;
    drop(answers);
    _ = timeout(WRITE_DEADLINE, async {
        tracker.wait().await;
        _ = writer.await;
    })
    .await;
}

fn fail(kind: FailureKind, message: impl Into<String>, remedy: impl Into<String>) -> Failure {
    Failure { kind, message: message.into(), remedy: remedy.into() }
}

/// Reads and answers the Hello; says whether the client is a read-only one.
async fn hello<S: AsyncRead + AsyncWrite + Unpin>(frames: &mut Frames<S>) -> io::Result<bool> {
    let Some(frame) = frames.next().await else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let call = codec::decode::<Call>(&frame?);
    let pid = std::process::id();
    let engine_version = env!("CARGO_PKG_VERSION").to_owned();
    let (id, outcome) = match call {
        Ok(Call { id, request: Request::Hello { version: PROTOCOL_VERSION, readonly } }) => (id, Ok(readonly)),
        Ok(Call { id, request: Request::Hello { version, .. } }) => {
            let what = format!(
                "the engine (duplex {engine_version}, process {pid}) speaks protocol {PROTOCOL_VERSION}, this client {version}"
            );
            let remedy = format!("end the engine (kill {pid}) and start this version's; its jobs go on where they are");
            (id, Err(fail(FailureKind::Version, what, remedy)))
        }
        Ok(Call { id, .. }) => (id, Err(fail(FailureKind::Usage, "a connection begins with Hello", ""))),
        Err(error) => (0, Err(fail(FailureKind::Usage, format!("not a Hello: {error}"), ""))),
    };
    let (reply, result) = match outcome {
        Ok(readonly) => (Reply::Hello { version: PROTOCOL_VERSION, engine_version, pid }, Ok(readonly)),
        Err(error) => (Reply::Error { error: error.clone() }, Err(io::Error::other(error))),
    };
    frames.send(codec::encode(&Answer { id, last: true, reply })?).await?;
    result
}

async fn write<S>(
    mut sink: SplitSink<Frames<S>, bytes::Bytes>,
    mut queue: mpsc::Receiver<Answer>,
    ended: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(answer) = queue.recv().await {
        let (id, last) = (answer.id, answer.last);
        let frame = codec::encode(&answer).or_else(|error| {
            // Too long for a frame: the client is told so, instead of waiting for ever.
            let error = fail(FailureKind::Failed, error.to_string(), "ask for less at a time");
            codec::encode(&Answer { id, last, reply: Reply::Error { error } })
        });
        let Ok(frame) = frame else { continue };
        match timeout(WRITE_DEADLINE, sink.send(frame)).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    _ = timeout(WRITE_DEADLINE, sink.close()).await;
    // Also ends the reader and the requests of a client that is gone.
    ended.cancel();
    while queue.recv().await.is_some() {}
}

/// The requests of one connection.
struct Running {
    tasks: Arc<Mutex<HashMap<u64, CancellationToken>>>,
    answers: mpsc::Sender<Answer>,
    service: Arc<dyn Service>,
    tracker: TaskTracker,
    readonly: bool,
}

impl Running {
    async fn refuse(&self, id: u64, error: Failure) {
        _ = self.answers.send(Answer { id, last: true, reply: Reply::Error { error } }).await;
    }

    async fn begin(&self, Call { id, request }: Call) {
        if self.readonly && !request.is_readonly() {
            let error = fail(FailureKind::ReadOnly, "this client can only watch", "connect without --readonly");
            return self.refuse(id, error).await;
        }
        match request {
            Request::Cancel { id: other } => {
                if let Some(token) = self.tasks.lock().await.get(&other) {
                    token.cancel();
                }
                // Ending what has ended already is fine.
                _ = self.answers.send(Answer { id, last: true, reply: Reply::Done }).await;
            }
            Request::Hello { .. } => {
                self.refuse(id, fail(FailureKind::Usage, "this connection has said Hello already", "")).await;
            }
            request => {
                let token = CancellationToken::new();
                {
                    let mut tasks = self.tasks.lock().await;
                    if tasks.len() >= MAX_REQUESTS {
                        drop(tasks);
                        let what = format!("{MAX_REQUESTS} requests of this connection are running");
                        return self.refuse(id, fail(FailureKind::Usage, what, "wait for some of them")).await;
                    }
                    if tasks.contains_key(&id) {
                        drop(tasks);
                        return self.refuse(id, fail(FailureKind::Usage, "this id is in use", "")).await;
                    }
                    tasks.insert(id, token.clone());
                }
                let (service, answers, tasks) = (self.service.clone(), self.answers.clone(), self.tasks.clone());
                self.tracker.spawn(async move {
                    let last = run(id, request, service, &answers, token).await;
                    // The id is free before the client can know that its request has ended.
                    tasks.lock().await.remove(&id);
                    _ = answers.send(last).await;
                });
            }
        }
    }
}

/// Runs one request; passes its answers on as they come and gives back the last.
async fn run(
    id: u64,
    request: Request,
    service: Arc<dyn Service>,
    answers: &mpsc::Sender<Answer>,
    cancel: CancellationToken,
) -> Answer {
    let (replies, mut coming) = mpsc::channel(8);
    let asked = request.clone();
    let work = async {
        tokio::select! {
            _ = cancel.cancelled() => {}
            _ = service.call(request, replies) => {}
        }
    };
    let given_up = cancel.clone();
    let pass = async move {
        while let Some(reply) = coming.recv().await {
            if asked.is_last(&reply) {
                return Some(reply);
            }
            if answers.send(Answer { id, last: false, reply }).await.is_err() {
                given_up.cancel();
            }
        }
        None
    };
    let (_, last) = tokio::join!(work, pass);
    let reply = last.unwrap_or_else(|| match cancel.is_cancelled() {
        true => Reply::Done,
        false => Reply::Error { error: fail(FailureKind::Failed, "the engine gave no answer", "look into its log") },
    });
    Answer { id, last: true, reply }
}
