//! The few words spoken before a connection is handed on: requests out, simple replies in.
//!
//! Not a client: no nesting, and whoever sends several requests at once reads their replies in order himself; whoever
//! needs more takes the control connection or the raw stream.

use super::{NetError, RawStream, ServerError};
use bytes::{Buf, BytesMut};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The longest line and the longest bulk that a handshake may hold: INFO is a few KiB, CLIENT LIST of ten thousand
/// connections a few MiB.
const MAX_LINE: usize = 64 << 10;
const MAX_BULK: usize = 64 << 20;

/// One piece of a reply. An array is its header, then its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// `+text`
    Simple(String),
    /// `-text`
    Error(String),
    /// `:n`
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    /// `*n`: n tokens follow.
    Array(usize),
}

/// A connection during its handshake, with what was read and not yet used.
#[derive(Debug)]
pub struct Conversation {
    address: String,
    stream: RawStream,
    buffer: BytesMut,
    heard: bool,
    /// What goes out in front of the next requests, and what its answers, which come before theirs, are about.
    ahead: Vec<u8>,
    due: VecDeque<Due>,
}

/// An answer that nobody has looked at yet.
#[derive(Debug)]
struct Due {
    doing: &'static str,
    tolerated: Tolerated,
}

/// Which refusals of a request can be lived with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tolerated {
    Nothing,
    /// The command is not known there.
    Unknown,
    /// It is not taken there; but an account that is missing, or lacks a right, is told.
    Any,
}

impl Tolerated {
    fn covers(self, text: &str) -> bool {
        match self {
            Tolerated::Nothing => false,
            Tolerated::Unknown => text.starts_with("ERR unknown") || text.starts_with("ERR unsupported"),
            Tolerated::Any => !matches!(ServerError::classify(text), ServerError::NoAuth | ServerError::NoPerm),
        }
    }
}

impl Conversation {
    pub(super) fn new(address: &str, stream: RawStream) -> Self {
        Conversation {
            address: address.to_owned(),
            stream,
            buffer: BytesMut::with_capacity(4096),
            heard: false,
            ahead: Vec::new(),
            due: VecDeque::new(),
        }
    }

    /// A request that wants OK and goes out with the next ones, so that it costs no round trip of its own. Its answer is
    /// looked at before theirs.
    pub(super) fn ahead(&mut self, words: &[&[u8]], doing: &'static str, tolerated: Tolerated) {
        put_request(&mut self.ahead, words);
        self.due.push_back(Due { doing, tolerated });
    }

    /// Sends what is to go ahead, and waits for its answers.
    pub async fn greeted(&mut self, deadline: Duration) -> Result<(), NetError> {
        if !self.ahead.is_empty() {
            self.send_all(&[], deadline).await?;
        }
        self.take_due(deadline).await
    }

    async fn take_due(&mut self, quiet: Duration) -> Result<(), NetError> {
        while let Some(Due { doing, tolerated }) = self.due.pop_front() {
            match self.next_token(quiet).await? {
                Token::Error(text) if tolerated.covers(&text) => {}
                answer => super::expect_ok(&self.address, doing, answer)?,
            }
        }
        Ok(())
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn stream(&self) -> &RawStream {
        &self.stream
    }

    /// The connection, and bytes that came after the last token.
    pub fn into_parts(self) -> (RawStream, BytesMut) {
        debug_assert!(self.ahead.is_empty() && self.due.is_empty(), "handed on before it was greeted");
        (self.stream, self.buffer)
    }

    /// Sends one request.
    pub async fn send(&mut self, words: &[&[u8]], deadline: Duration) -> Result<(), NetError> {
        self.send_all(&[words], deadline).await
    }

    /// Sends several requests at once: their replies come for the price of one round trip.
    pub async fn send_all(&mut self, requests: &[&[&[u8]]], deadline: Duration) -> Result<(), NetError> {
        let words: usize = requests.iter().flat_map(|r| r.iter()).map(|w| w.len() + 32).sum();
        let mut out = Vec::with_capacity(self.ahead.len() + words);
        out.extend_from_slice(&self.ahead);
        zeroize::Zeroize::zeroize(&mut self.ahead);
        requests.iter().for_each(|words| put_request(&mut out, words));
        let sent = tokio::time::timeout(deadline, async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        })
        .await;
        // It may have held a password.
        zeroize::Zeroize::zeroize(&mut out);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(self.explain_end(NetError::from_io(&self.address, "send a command", &e)).await),
            Err(_) => {
                Err(NetError::TimedOut { address: self.address.clone(), doing: "send a command", waited: deadline })
            }
        }
    }

    /// A server that closes at once may have said why before: read it.
    async fn explain_end(&mut self, otherwise: NetError) -> NetError {
        match self.next_token(Duration::from_millis(200)).await {
            Ok(Token::Error(text)) => NetError::from_reply(&self.address, "the connection", &text),
            Err(e @ (NetError::NotRedis { .. } | NetError::TlsClientCertificate { .. })) => e,
            _ => otherwise,
        }
    }

    /// A reply that is a list of plain values, or one of them; an error stands for itself.
    pub async fn list(&mut self, quiet: Duration) -> Result<Vec<Token>, NetError> {
        let Token::Array(count) = self.token(quiet).await? else { return Ok(Vec::new()) };
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(self.token(quiet).await?);
        }
        Ok(list)
    }

    /// Sends one request and reads the first token of its reply.
    pub async fn ask(&mut self, words: &[&[u8]], deadline: Duration) -> Result<Token, NetError> {
        self.send(words, deadline).await?;
        self.token(deadline).await
    }

    /// The next token; bare newlines before it are the master's keep-alives and are skipped. `quiet` is the longest
    /// time without any byte, so keep-alives extend the wait.
    pub async fn token(&mut self, quiet: Duration) -> Result<Token, NetError> {
        self.take_due(quiet).await?;
        self.next_token(quiet).await
    }

    async fn next_token(&mut self, quiet: Duration) -> Result<Token, NetError> {
        loop {
            while self.buffer.first() == Some(&b'\n') {
                self.buffer.advance(1);
                self.heard = true;
            }
            if let Some(token) = self.parse()? {
                self.heard = true;
                return Ok(token);
            }
            self.fill(quiet).await?;
        }
    }

    /// The next line as it stands, without its end: for replies that are no RESP (`$EOF:...`).
    pub async fn line(&mut self, quiet: Duration) -> Result<String, NetError> {
        loop {
            while self.buffer.first() == Some(&b'\n') {
                self.buffer.advance(1);
            }
            if let Some(line) = self.take_line()? {
                return Ok(line);
            }
            self.fill(quiet).await?;
        }
    }

    async fn fill(&mut self, quiet: Duration) -> Result<(), NetError> {
        const DOING: &str = "read an answer";
        match tokio::time::timeout(quiet, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0)) => Err(NetError::Closed { address: self.address.clone(), doing: DOING }),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(NetError::from_io(&self.address, DOING, &e)),
            Err(_) => Err(NetError::TimedOut { address: self.address.clone(), doing: DOING, waited: quiet }),
        }
    }

    fn take_line(&mut self) -> Result<Option<String>, NetError> {
        match memchr::memchr(b'\n', &self.buffer) {
            Some(end) => {
                let line = self.buffer.split_to(end + 1);
                Ok(Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned()))
            }
            None if self.buffer.len() > MAX_LINE => Err(self.not_redis()),
            None => Ok(None),
        }
    }

    fn parse(&mut self) -> Result<Option<Token>, NetError> {
        let Some(&kind) = self.buffer.first() else { return Ok(None) };
        if !b"+-:$*".contains(&kind) {
            return Err(self.not_redis());
        }
        let Some(end) = memchr::memchr(b'\n', &self.buffer) else {
            return if self.buffer.len() > MAX_LINE { Err(self.not_redis()) } else { Ok(None) };
        };
        let text = String::from_utf8_lossy(&self.buffer[1..end]).trim_end_matches('\r').to_owned();
        let token = match kind {
            b'+' => Token::Simple(text),
            b'-' => Token::Error(text),
            b':' => Token::Integer(text.parse().map_err(|_| self.not_redis())?),
            b'*' => match text.parse::<i64>() {
                Ok(-1) => Token::Nil,
                Ok(n) if (0..=1 << 20).contains(&n) => Token::Array(n as usize),
                _ => return Err(self.not_redis()),
            },
            _ => match text.parse::<i64>() {
                Ok(-1) => Token::Nil,
                Ok(n) if (0..=MAX_BULK as i64).contains(&n) => {
                    let (start, stop) = (end + 1, end + 1 + n as usize);
                    if self.buffer.len() < stop + 2 {
                        return Ok(None);
                    }
                    let bulk = self.buffer[start..stop].to_vec();
                    self.buffer.advance(stop + 2);
                    return Ok(Some(Token::Bulk(bulk)));
                }
                _ => return Err(self.not_redis()),
            },
        };
        self.buffer.advance(end + 1);
        Ok(Some(token))
    }

    fn not_redis(&self) -> NetError {
        let start = &self.buffer[..self.buffer.len().min(60)];
        // 0x15 is a TLS alert record, 0x16 a TLS handshake record (RFC 8446, 5.1).
        let hint = if matches!(start, [0x15 | 0x16, 3, ..]) {
            "the port speaks TLS: turn TLS on for this instance"
        } else if start.starts_with(b"HTTP/") {
            "that is a web server: check host and port"
        } else {
            "check host and port"
        };
        let seen = String::from_utf8_lossy(start).lines().next().unwrap_or("").to_owned();
        NetError::NotRedis { address: self.address.clone(), seen, hint }
    }
}

/// A request in RESP.
pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + words.iter().map(|w| w.len() + 16).sum::<usize>());
    put_request(&mut out, words);
    out
}

fn put_request(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
