//! The other end of the control socket: what the command line and the console hold.
//!
//! A [`Client`] is cheap to clone; its requests run side by side over one connection. Requests with one answer have
//! a deadline; a stream ([`Replies`]) has none, ends with the connection, and is cancelled when it is dropped.

mod error;
mod typed;

pub use error::ClientError;
pub use typed::{Started, Watching};

use super::{
    codec,
    protocol::{Answer, Call, FailureKind, PROTOCOL_VERSION, Reply, Request},
};
use futures::{SinkExt, StreamExt};
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    sync::mpsc,
    time::timeout,
};

/// A local socket that doesn't take a connection, or an engine that doesn't answer a Hello, in this time is stuck.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// For a request that the engine answers from what it knows.
pub const QUICK: Duration = Duration::from_secs(15);
/// For one that dials instances: longer than the engine's own deadlines, so that its reason arrives.
pub const SLOW: Duration = Duration::from_secs(180);
/// Answers that wait for their reader; beyond, the whole connection waits.
const QUEUE: usize = 256;
/// A reader of answers that takes none for this long has its request cancelled, so that the others go on.
const STALL: Duration = Duration::from_secs(5);

type Pending = HashMap<u64, mpsc::Sender<Answer>>;

/// A connection to an engine.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    calls: mpsc::Sender<Call>,
    /// `None` once the connection has ended.
    pending: Arc<Mutex<Option<Pending>>>,
    next: AtomicU64,
    engine: Engine,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// The version of its program.
    pub version: String,
    pub pid: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is behind these locks is whole between any two statements: a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Connects to the engine that listens on `path`. A `readonly` client can only watch.
    pub async fn connect(path: &Path, readonly: bool) -> Result<Client, ClientError> {
        let stream = match timeout(CONNECT_DEADLINE, UnixStream::connect(path)).await {
            Err(_) => return Err(ClientError::Timeout { what: "connect to the engine", after: CONNECT_DEADLINE }),
            Ok(Err(error)) => {
                use std::io::ErrorKind::{ConnectionRefused, NotFound};
                return Err(match error.kind() {
                    NotFound | ConnectionRefused => ClientError::NoEngine { path: path.to_owned() },
                    _ => ClientError::Connect { path: path.to_owned(), reason: error.to_string() },
                });
            }
            Ok(Ok(stream)) => stream,
        };
        // Whoever owns the socket gets the credentials of a job: make sure that it is this user.
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == nix::unistd::geteuid().as_raw() => {}
            _ => {
                let reason = "the process behind it belongs to another user".to_owned();
                return Err(ClientError::Connect { path: path.to_owned(), reason });
            }
        }
        Client::over(stream, readonly).await.map_err(|error| match error {
            // It was on its way out: what was waiting for an answer is not answered any more.
            ClientError::Lost => ClientError::NoEngine { path: path.to_owned() },
            other => other,
        })
    }

    /// Speaks over any byte stream: in the in-process mode, one end of a pipe.
    pub async fn over<S>(stream: S, readonly: bool) -> Result<Client, ClientError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut frames = codec::frames(stream);
        let hello = Call { id: 0, request: Request::Hello { version: PROTOCOL_VERSION, readonly } };
        let lost = |_| ClientError::Lost;
        let engine = timeout(CONNECT_DEADLINE, async {
            frames.send(codec::encode(&hello).map_err(lost)?).await.map_err(lost)?;
            let frame = frames.next().await.ok_or(ClientError::Lost)?.map_err(lost)?;
            let answer: Answer = codec::decode(&frame).map_err(|e| ClientError::Garbled(e.to_string()))?;
            match answer.reply {
                Reply::Hello { version: PROTOCOL_VERSION, engine_version, pid } => {
                    Ok(Engine { version: engine_version, pid })
                }
                Reply::Hello { version, engine_version, pid } => Err(ClientError::Version {
                    message: format!(
                        "the engine (duplex {engine_version}, process {pid}) speaks protocol {version}, this client \
                         {PROTOCOL_VERSION}"
                    ),
                    remedy: format!(
                        "end the engine (kill {pid}) and start this version's; its jobs go on where they are"
                    ),
                }),
                Reply::Error { error } if error.kind == FailureKind::Version => {
                    Err(ClientError::Version { message: error.message, remedy: error.remedy })
                }
                Reply::Error { error } => Err(ClientError::Refused(error)),
                other => Err(ClientError::Garbled(format!("{other:?} instead of a Hello"))),
            }
        })
        .await
        .map_err(|_| ClientError::Timeout { what: "greet the engine", after: CONNECT_DEADLINE })??;

        let (sink, source) = frames.split();
        let (calls, queue) = mpsc::channel(QUEUE);
        let pending = Arc::new(Mutex::new(Some(Pending::new())));
        tokio::spawn(write(sink, queue));
        tokio::spawn(read(source, pending.clone(), calls.downgrade()));
        Ok(Client { inner: Arc::new(Inner { calls, pending, next: AtomicU64::new(1), engine }) })
    }

    /// Who answers.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Whether the connection has ended.
    pub fn is_lost(&self) -> bool {
        lock(&self.inner.pending).is_none()
    }

    /// Sends a request; its answers come in the stream that is given back.
    pub async fn request(&self, request: Request) -> Result<Replies, ClientError> {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let (answers, coming) = mpsc::channel(QUEUE);
        match &mut *lock(&self.inner.pending) {
            Some(pending) => _ = pending.insert(id, answers),
            None => return Err(ClientError::Lost),
        }
        let replies = Replies { client: self.clone(), id, coming, ended: false };
        match timeout(QUICK, self.inner.calls.send(Call { id, request })).await {
            Ok(Ok(())) => Ok(replies),
            Ok(Err(_)) => Err(ClientError::Lost),
            Err(_) => Err(ClientError::Timeout { what: "send a request to the engine", after: QUICK }),
        }
    }

    /// Sends a request that has one answer, and waits for it.
    pub async fn ask(&self, request: Request, within: Duration) -> Result<Reply, ClientError> {
        let mut replies = self.request(request).await?;
        match timeout(within, replies.next()).await {
            Ok(Some(reply)) => reply,
            Ok(None) => Err(ClientError::Lost),
            Err(_) => Err(ClientError::Timeout { what: "get an answer of the engine", after: within }),
        }
    }
}

async fn write<S>(mut sink: futures::stream::SplitSink<codec::Frames<S>, bytes::Bytes>, mut queue: mpsc::Receiver<Call>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(call) = queue.recv().await {
        let Ok(frame) = codec::encode(&call) else { break };
        if !matches!(timeout(SLOW, sink.send(frame)).await, Ok(Ok(()))) {
            break;
        }
    }
    // The last clone of the client is gone, or the engine is: closing ends the reader too.
    _ = timeout(QUICK, sink.close()).await;
}

async fn read<S>(
    mut source: futures::stream::SplitStream<codec::Frames<S>>,
    pending: Arc<Mutex<Option<Pending>>>,
    calls: mpsc::WeakSender<Call>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(frame)) = source.next().await {
        let Ok(answer) = codec::decode::<Answer>(&frame) else { break };
        let (id, last) = (answer.id, answer.last);
        let reader = match &mut *lock(&pending) {
            Some(map) if last => map.remove(&id),
            Some(map) => map.get(&id).cloned(),
            None => break,
        };
        let Some(reader) = reader else { continue };
        if !matches!(timeout(STALL, reader.send(answer)).await, Ok(Ok(()))) && !last {
            if let Some(map) = &mut *lock(&pending) {
                map.remove(&id);
            }
            if let Some(calls) = calls.upgrade() {
                _ = calls.try_send(Call { id: u64::MAX, request: Request::Cancel { id } });
            }
        }
    }
    // Every waiting request ends: its sender is dropped.
    *lock(&pending) = None;
}

/// The answers to one request, in order. Dropped before its end, it cancels the request.
pub struct Replies {
    client: Client,
    id: u64,
    coming: mpsc::Receiver<Answer>,
    ended: bool,
}

impl Replies {
    /// The next answer; `None` after the last. What the engine refuses comes as an error and is the last.
    pub async fn next(&mut self) -> Option<Result<Reply, ClientError>> {
        if self.ended {
            return None;
        }
        let Some(answer) = self.coming.recv().await else {
            self.ended = true;
            return Some(Err(ClientError::Lost));
        };
        self.ended = answer.last;
        Some(match answer.reply {
            Reply::Error { error } => Err(ClientError::Refused(error)),
            reply => Ok(reply),
        })
    }

    /// Whether the last answer has been read.
    pub fn is_ended(&self) -> bool {
        self.ended
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(pending) = &mut *lock(&self.client.inner.pending) {
            pending.remove(&self.id);
        }
        let id = self.client.inner.next.fetch_add(1, Ordering::Relaxed);
        // A full queue means that the connection is stuck; its end will cancel the request as well.
        _ = self.client.inner.calls.try_send(Call { id, request: Request::Cancel { id: self.id } });
    }
}
