//! The only module that dials Redis: names, TCP, TLS, accounts, client names, deadlines, sentinels.
//!
//! It owns how a connection comes to be and what its failures mean in plain words ([`NetError`]). It refuses to retry:
//! who asked knows better. Invariants: every connect, read and write has a deadline; every connection that is handed
//! out is authenticated, carries the job's client name, and has TCP_NODELAY and keep-alive set; secrets and
//! certificates are read anew at each dial, so that they can be rotated under a running job.

mod account;
mod cluster;
mod control;
mod conversation;
mod error;
mod info;
mod lineage;
mod masters;
mod replicas;
mod stream;
mod tls;

pub use cluster::{ClusterView, ClusterWatch, OwnSlots};
pub use control::Control;
use conversation::Tolerated;
pub use conversation::{Conversation, Token, request};
pub use error::{NetError, ServerError};
pub use info::{Keyspace, ServerInfo};
pub use lineage::Lineage;
pub use masters::ShardAddress;
pub use replicas::{ReplicaSeen, ReplicasSeen};
pub use stream::{RawReader, RawStream, RawWriter};

use crate::model::{Account, Instance};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::TcpStream;

/// Longest waits. A link over the world has round trips of 0.3 s; a server that forks may stand still for seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For one address: name, TCP and TLS each.
    pub connect: Duration,
    /// For one answer, in the handshake and on control connections.
    pub response: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { connect: Duration::from_secs(5), response: Duration::from_secs(15) }
    }
}

/// Knows how to reach one instance. A clone costs a reference count.
#[derive(Debug, Clone)]
pub struct Dialer {
    instance: Arc<Instance>,
    client_name: Arc<str>,
    deadlines: Deadlines,
    /// A user and a password were accepted there: it is no server of before 6.0.
    has_users: Arc<AtomicBool>,
}

impl Dialer {
    /// `client_name` is what `CLIENT LIST` shows; characters that a server refuses there become `-`.
    pub fn new(instance: &Instance, client_name: &str) -> Dialer {
        let name: String = client_name.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' }).collect();
        Dialer {
            instance: Arc::new(instance.clone()),
            client_name: name.into(),
            deadlines: Deadlines::default(),
            has_users: Arc::default(),
        }
    }

    /// The same, with other deadlines.
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Dialer {
        self.deadlines = deadlines;
        self
    }

    pub fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    pub fn client_name(&self) -> &str {
        &self.client_name
    }

    /// The same instance, for connections of another name.
    pub fn named(&self, client_name: &str) -> Dialer {
        Dialer { client_name: client_name.into(), ..self.clone() }
    }

    /// The instance's account, read now.
    pub async fn account(&self) -> Result<Account, NetError> {
        account::resolve(&self.instance.account).await
    }

    /// A connection for questions (INFO, CONFIG, SCAN …): RESP2, many at a time, answers in order.
    pub async fn control(&self, address: &str) -> Result<Control, NetError> {
        self.over(self.conversation(address).await?).await
    }

    /// The same, over a connection on which all that was asked has been answered.
    pub async fn over(&self, talk: Conversation) -> Result<Control, NetError> {
        Control::over(talk, self.deadlines).await
    }

    /// A connection for the hot path: bytes.
    pub async fn raw(&self, address: &str) -> Result<RawStream, NetError> {
        Ok(self.conversation(address).await?.into_parts().0)
    }

    /// An authenticated and named connection on which a few more words are to be spoken, such as PSYNC's.
    pub async fn conversation(&self, address: &str) -> Result<Conversation, NetError> {
        let mut talk = self.begin(address).await?;
        talk.greeted(self.deadlines.response).await?;
        Ok(talk)
    }

    /// The same where words are spoken at once: over a slow line that saves a round trip, since the account and the name go
    /// out with them and their answers are looked at before those to the words.
    pub async fn begin(&self, address: &str) -> Result<Conversation, NetError> {
        let stream = self.connect(address).await?;
        let account = self.account().await?;
        self.begin_on(address, stream, &account).await
    }

    /// The same with an account that was read before: many connections at once are to run its command once.
    pub async fn begin_as(&self, address: &str, account: &Account) -> Result<Conversation, NetError> {
        self.begin_on(address, self.connect(address).await?, account).await
    }

    async fn begin_on(&self, address: &str, stream: RawStream, account: &Account) -> Result<Conversation, NetError> {
        let mut talk = Conversation::new(address, stream);
        self.introduce(&mut talk, account).await?;
        Ok(talk)
    }

    /// What the server says of itself.
    pub async fn info(&self, address: &str) -> Result<ServerInfo, NetError> {
        self.control(address).await?.info().await
    }

    /// The version by HELLO, which from 6.2 on takes no right but to log in; `None` before that.
    pub async fn version(&self, address: &str) -> Option<(u32, u32)> {
        let asked = async {
            let mut talk = Conversation::new(address, self.connect(address).await?);
            let account = self.account().await?;
            self.log_in(&mut talk, &account).await?;
            let wait = self.deadlines.response;
            let Token::Array(fields) = talk.ask(&[b"HELLO"], wait).await? else { return Ok(None) };
            for _ in 0..fields {
                if talk.token(wait).await? == Token::Bulk(b"version".to_vec()) {
                    return talk.token(wait).await.map(Some);
                }
            }
            Ok::<_, NetError>(None)
        };
        let Ok(Some(Token::Bulk(version))) = asked.await else { return None };
        let text = String::from_utf8_lossy(&version);
        let mut numbers = text.split('.').map_while(|n| n.parse::<u32>().ok());
        Some((numbers.next()?, numbers.next()?)).filter(|version| *version >= (6, 2))
    }

    async fn connect(&self, address: &str) -> Result<RawStream, NetError> {
        let (host, port) = split_address(address)?;
        let tcp = self.connect_tcp(address, &host, port).await?;
        prepare(&tcp).map_err(|e| NetError::from_io(address, "set up the socket", &e))?;
        let Some(settings) = self.instance.tls.clone() else { return Ok(RawStream::Plain(tcp)) };
        let name = tls::server_name(&settings, address, &host)?;
        let config = tokio::task::spawn_blocking(move || tls::client_config(&settings))
            .await
            .map_err(|e| NetError::Tls { address: address.to_owned(), seen: e.to_string() })??;
        // A plain port waits for the end of a line and says nothing.
        const DOING: &str = "agree on TLS";
        let waited = self.deadlines.connect;
        match tokio::time::timeout(waited, tokio_rustls::TlsConnector::from(config).connect(name, tcp)).await {
            Ok(Ok(stream)) => Ok(RawStream::Tls(Box::new(stream))),
            Ok(Err(e)) => Err(NetError::from_io(address, DOING, &e)),
            Err(_) => Err(NetError::TlsSilent { address: address.to_owned(), waited }),
        }
    }

    async fn connect_tcp(&self, address: &str, host: &str, port: u16) -> Result<TcpStream, NetError> {
        let deadline = self.deadlines.connect;
        let found: Vec<SocketAddr> = match tokio::time::timeout(deadline, tokio::net::lookup_host((host, port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(e)) => return Err(NetError::Dns { address: address.to_owned(), seen: e.to_string() }),
            Err(_) => {
                return Err(NetError::TimedOut {
                    address: address.to_owned(),
                    doing: "resolve its name",
                    waited: deadline,
                });
            }
        };
        // A name may have an IPv6 address that nobody routes: it must not eat the others' time.
        let share = deadline / found.len().clamp(1, 4) as u32;
        let mut last = NetError::Dns { address: address.to_owned(), seen: "no address".into() };
        for socket in found {
            match tokio::time::timeout(share, TcpStream::connect(socket)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => last = NetError::from_io(address, "connect", &e),
                Err(_) => {
                    last = NetError::TimedOut { address: address.to_owned(), doing: "connect", waited: share };
                }
            }
        }
        Err(last)
    }

    async fn log_in(&self, talk: &mut Conversation, account: &Account) -> Result<(), NetError> {
        match (account.expose().map(str::as_bytes), &account.user) {
            (Some(password), Some(user)) if !self.has_users.load(Relaxed) => {
                let wait = self.deadlines.response;
                let mut answer = talk.ask(&[b"AUTH", user.as_bytes(), password], wait).await?;
                // Before 6.0 there are no users: AUTH takes the password alone.
                let without = matches!(&answer, Token::Error(text) if text.contains("wrong number of arguments"));
                if without {
                    answer = talk.ask(&[b"AUTH", password], wait).await?;
                }
                expect_ok(talk.address(), "AUTH", answer)?;
                self.has_users.store(!without, Relaxed);
            }
            (Some(password), Some(user)) => {
                talk.ahead(&[b"AUTH", user.as_bytes(), password], "AUTH", Tolerated::Nothing)
            }
            (Some(password), None) => talk.ahead(&[b"AUTH", password], "AUTH", Tolerated::Nothing),
            (None, _) => {}
        }
        Ok(())
    }

    /// AUTH and CLIENT SETNAME.
    async fn introduce(&self, talk: &mut Conversation, account: &Account) -> Result<(), NetError> {
        self.log_in(talk, account).await?;
        // A proxy may not know CLIENT: it can be lived with, an old engine is then not found by its name.
        let tolerated = if self.instance.is_proxied() { Tolerated::Any } else { Tolerated::Unknown };
        talk.ahead(&[b"CLIENT", b"SETNAME", self.client_name.as_bytes()], "CLIENT SETNAME", tolerated);
        Ok(())
    }
}

/// Fails unless the answer is a simple string.
fn expect_ok(address: &str, doing: &str, answer: Token) -> Result<(), NetError> {
    match answer {
        Token::Simple(_) => Ok(()),
        Token::Error(text) => Err(NetError::from_reply(address, doing, &text)),
        other => Err(NetError::Server {
            address: address.to_owned(),
            doing: doing.to_owned(),
            kind: ServerError::Other,
            seen: format!("{other:?} where OK was due"),
        }),
    }
}

/// A bare TCP connection on which nothing has been said: for a look at who answers there. The deadline is the caller's.
pub async fn knock(address: &str) -> std::io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// No delay for small writes; a peer that vanished without a word is noticed within about a minute.
fn prepare(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(10))
        .with_retries(4);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

/// `host:port`, `[::1]:port`, or a host alone, which means port 6379.
pub fn split_address(address: &str) -> Result<(String, u16), NetError> {
    let bad = |seen: &str| NetError::BadAddress { address: address.to_owned(), seen: seen.to_owned() };
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| bad("the bracket is not closed"))?;
        (host, rest.strip_prefix(':'))
    } else {
        match address.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err(bad("an IPv6 address needs brackets")),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    if host.is_empty() {
        return Err(bad("the host is missing"));
    }
    let port = match port {
        None => 6379,
        Some(text) => text.parse().ok().filter(|p| *p > 0).ok_or_else(|| bad("the port is not 1 to 65535"))?,
    };
    Ok((host.to_owned(), port))
}

/// The reverse of [`split_address`].
pub fn join_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split() {
        assert_eq!(split_address("redis.example:7000").unwrap(), ("redis.example".into(), 7000));
        assert_eq!(split_address("redis.example").unwrap(), ("redis.example".into(), 6379));
        assert_eq!(split_address("[::1]:7000").unwrap(), ("::1".into(), 7000));
        for bad in ["", ":1", "::1:7000", "[::1:7000", "h:0", "h:65536", "h:x"] {
            assert!(matches!(split_address(bad), Err(NetError::BadAddress { .. })), "{bad}");
        }
        assert_eq!(join_address("::1", 7000), "[::1]:7000");
    }
}
