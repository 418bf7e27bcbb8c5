//! A connection for questions: the redis crate's multiplexed connection over a stream that we dialled.
//!
//! The crate is given our stream instead of an address, so that there is one way to dial, and its defaults (500 ms for
//! an answer, no TCP_NODELAY, no choice of the TLS server name) never apply.

use super::{Conversation, Deadlines, NetError, ServerInfo};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisConnectionInfo, RedisFuture, Value};
use std::sync::Arc;

/// Clones share the connection; it ends with the last of them.
#[derive(Clone)]
pub struct Control {
    connection: MultiplexedConnection,
    address: Arc<str>,
    _driver: Arc<Driver>,
}

/// The task that moves the connection's bytes, ended with the connection.
struct Driver(tokio::task::AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Control {
    pub(super) async fn over(talk: Conversation, deadlines: Deadlines) -> Result<Control, NetError> {
        let address: Arc<str> = talk.address().into();
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(deadlines.response));
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, talk.into_parts().0, config)
            .await
            .map_err(|e| NetError::from_redis(&address, "the connection", &e))?;
        let driver = Arc::new(Driver(tokio::spawn(driver).abort_handle()));
        Ok(Control { connection, address, _driver: driver })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Longest wait for one answer on this clone.
    pub fn set_response_timeout(&mut self, timeout: std::time::Duration) {
        self.connection.set_response_timeout(timeout);
    }

    /// Asks one thing; an error names the server and what to do.
    pub async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, NetError> {
        let name = command.args_iter().next();
        command.query_async(&mut self.connection).await.map_err(|e| {
            let name = match name {
                Some(redis::Arg::Simple(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
                _ => "a command".to_owned(),
            };
            NetError::from_redis(&self.address, &name, &e)
        })
    }

    /// `INFO`, all default sections.
    pub async fn info(&mut self) -> Result<ServerInfo, NetError> {
        let text: String = self.ask(&redis::cmd("INFO")).await?;
        Ok(ServerInfo::parse(&text))
    }

    /// One value of `CONFIG GET`; `None` where the server has no such name.
    pub async fn config(&mut self, name: &str) -> Result<Option<String>, NetError> {
        let pairs: Vec<String> = self.ask(redis::cmd("CONFIG").arg("GET").arg(name)).await?;
        Ok(pairs.into_iter().nth(1))
    }
}

impl ConnectionLike for Control {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        self.connection.req_packed_command(command)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}
