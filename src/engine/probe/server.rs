//! One server that answers: a connection, its `INFO`, and questions to it.

use super::info::Info;
use crate::engine::net::Control;
use redis::{Cmd, Pipeline, Value, aio::ConnectionLike};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Why a question was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The server's own error line, without the leading `-`.
    #[error("{0}")]
    Refused(String),
    /// The connection broke or the time was up.
    #[error("no answer: {0}")]
    Broken(String),
}

/// A connection with what it has learnt. Clones share both.
#[derive(Clone)]
pub struct Server {
    pub address: String,
    conn: Control,
    info: Arc<OnceCell<Info>>,
}

impl Server {
    pub fn new(conn: Control) -> Self {
        Server { address: conn.address().to_owned(), conn, info: Arc::default() }
    }

    /// Sends one command.
    pub async fn ask(&self, cmd: &Cmd) -> Result<Value, Refusal> {
        match self.conn.clone().req_packed_command(cmd).await {
            Ok(Value::ServerError(e)) => Err(Refusal::Refused(error_line(&e))),
            Ok(value) => Ok(value),
            // The crate turns some error replies into errors of its own: those carry the server's code.
            Err(e) if e.code().is_some() => {
                Err(Refusal::Refused(format!("{} {}", e.code().unwrap_or(""), e.detail().unwrap_or(""))))
            }
            Err(e) => Err(Refusal::Broken(e.to_string())),
        }
    }

    /// Sends a pipeline; an error reply is a `Value::ServerError` in its place.
    pub async fn ask_all(&self, pipe: &Pipeline) -> Result<Vec<Value>, Refusal> {
        if pipe.is_empty() {
            return Ok(Vec::new());
        }
        let n = pipe.len();
        let values = self.conn.clone().req_packed_commands(pipe, 0, n).await;
        let values = values.map_err(|e| Refusal::Broken(e.to_string()))?;
        if values.len() == n {
            Ok(values)
        } else {
            Err(Refusal::Broken(format!("{} replies to {n} commands", values.len())))
        }
    }

    /// `INFO`, asked once.
    pub async fn info(&self) -> Result<&Info, Refusal> {
        self.info.get_or_try_init(|| self.fresh_info()).await
    }

    /// `INFO`, if it has been asked.
    pub fn known_info(&self) -> Option<&Info> {
        self.info.get()
    }

    /// `INFO`, asked again.
    pub async fn fresh_info(&self) -> Result<Info, Refusal> {
        Ok(Info::parse(&text(&self.ask(&redis::cmd("INFO")).await?).unwrap_or_default()))
    }

    /// One parameter of `CONFIG GET`; `None` where the server knows none of that name.
    pub async fn config(&self, name: &str) -> Result<Option<String>, Refusal> {
        let mut cmd = redis::cmd("CONFIG");
        cmd.arg("GET").arg(name);
        Ok(match self.ask(&cmd).await? {
            Value::Array(v) => v.get(1).and_then(text),
            Value::Map(v) => v.first().and_then(|(_, v)| text(v)),
            _ => None,
        })
    }
}

/// An error reply as the server wrote it.
pub fn error_line(e: &redis::ServerError) -> String {
    match e.details() {
        Some(details) => format!("{} {details}", e.code()),
        None => e.code().to_owned(),
    }
}

/// A reply read as text; lossy.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(b) => Some(String::from_utf8_lossy(b).into_owned()),
        Value::SimpleString(s) => Some(s.clone()),
        Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Okay => Some("OK".into()),
        Value::Int(i) => Some(i.to_string()),
        _ => None,
    }
}

/// A reply read as a whole number.
pub fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(i) => Some(*i),
        Value::BulkString(b) => atoi::atoi(b),
        _ => None,
    }
}

/// The items of an array-like reply.
pub fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(v) | Value::Set(v) => v,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(k, v)| [k, v]).collect(),
        _ => Vec::new(),
    }
}

/// The bytes of a bulk reply.
pub fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(b) => Some(b),
        Value::SimpleString(s) => Some(s.into_bytes()),
        Value::Int(i) => Some(i.to_string().into_bytes()),
        _ => None,
    }
}

/// A reply of SCAN and its like: the next cursor and the items.
pub fn scan_page(value: Value) -> Option<(Vec<u8>, Vec<Value>)> {
    let mut parts = items(value).into_iter();
    Some((bytes(parts.next()?)?, items(parts.next()?)))
}
