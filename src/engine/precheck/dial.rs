//! A thin connector of the precheck's own.

use crate::model::{Account, AccountSource, Instance};
use redis::aio::MultiplexedConnection;
use std::time::Duration;

/// Why a server could not be talked to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{tried}: {seen}; {remedy}")]
pub struct NetError {
    pub tried: String,
    pub seen: String,
    pub remedy: String,
}

/// Dials the servers of one instance.
#[derive(Clone)]
pub struct Dialer {
    instance: Instance,
    name: String,
}

impl Dialer {
    pub fn new(instance: &Instance, client_name: &str) -> Self {
        Dialer { instance: instance.clone(), name: client_name.to_owned() }
    }

    pub async fn masters(&self) -> Result<Vec<String>, NetError> {
        Ok(self.instance.addresses.iter().take(1).cloned().collect())
    }

    pub async fn control(&self, address: &str) -> Result<MultiplexedConnection, NetError> {
        let wrong = |seen: String| NetError {
            tried: format!("connect to {address}"),
            seen,
            remedy: "look at the address and the account".into(),
        };
        let account = match &self.instance.account {
            AccountSource::None => Account::default(),
            AccountSource::Inline(text) => Account::parse(text.expose()),
            AccountSource::Env(name) => Account::parse(&std::env::var(name).map_err(|e| wrong(e.to_string()))?),
            _ => return Err(wrong("the account's source is not read here".into())),
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("no port".into()))?;
        let mut settings = redis::RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &account.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = account.expose() {
            settings = settings.set_password(password);
        }
        let address = redis::ConnectionAddr::Tcp(host.to_owned(), port.parse().map_err(|_| wrong("bad port".into()))?);
        let info = redis::IntoConnectionInfo::into_connection_info(address).map_err(|e| wrong(e.to_string()))?;
        let client = redis::Client::open(info.set_redis_settings(settings)).map_err(|e| wrong(e.to_string()))?;
        let config = redis::AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_response_timeout(Some(Duration::from_secs(10)));
        let mut conn = client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(|e| wrong(e.to_string()))?;
        let _ = redis::cmd("CLIENT").arg("SETNAME").arg(&self.name).query_async::<()>(&mut conn).await;
        Ok(conn)
    }
}
