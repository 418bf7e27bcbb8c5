//! Space for a big string at the other site, made without a call that holds the site up.
//!
//! A string comes in pieces. jemalloc moves one that grows, again and again, unless what lies behind it is free; and
//! SETRANGE at its end, which takes all of the memory at once, fills it with zeroes in that one call. So a connection
//! announces an argument of that size and ends before it sends any of it: the server takes memory in one piece, touches
//! none of it and gives it back, and there the string then grows without being moved. Nothing is run, written or
//! replicated by it. Where it can't be done the caller has SETRANGE make the room.

use crate::engine::net::{Dialer, NetError, RawStream, ServerInfo, Token, join_address};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Strings below this are given their room by SETRANGE: some 20 ms.
pub const LEAST: u64 = 32 << 20;
/// What a server takes besides, for a string that grows: 1 MiB ahead, and what it is rounded to.
const BESIDES: u64 = 2 << 20;
/// All of it, at the site and at its replicas.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether there is now space for a string of this size, at the site and at all of its replicas, which grow it as well.
pub async fn made(dialer: &Dialer, address: &str, size: u64) -> bool {
    if dialer.instance().is_proxied() {
        return false;
    }
    let made = tokio::time::timeout(PATIENCE, async {
        let (info, clients) = asked(dialer, address).await?;
        if !may_take(&info, size) {
            return Ok(false);
        }
        for replica in replicas(&info, &clients) {
            let (info, clients) = asked(dialer, &replica).await?;
            if !may_take(&info, size)
                || !replicas(&info, &clients).is_empty()
                || !announced(dialer, &replica, size).await?
            {
                return Ok(false);
            }
        }
        announced(dialer, address, size).await
    });
    match made.await {
        Ok(Ok(made)) => made,
        Ok(Err::<bool, NetError>(e)) => {
            tracing::debug!("no space is made for a string of {size} bytes at {address}: {e}");
            false
        }
        Err(_) => false,
    }
}

/// What a server says of itself and of those that are connected to it.
async fn asked(dialer: &Dialer, address: &str) -> Result<(ServerInfo, String), NetError> {
    let wait = dialer.deadlines().response;
    let mut talk = dialer.conversation(address).await?;
    talk.send_all(&[&[b"INFO"], &[b"CLIENT", b"LIST"]], wait).await?;
    let mut text = async || match talk.token(wait).await? {
        Token::Bulk(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Token::Error(text) => Err(NetError::from_reply(address, "INFO and CLIENT LIST", &text)),
        _ => Ok(String::new()),
    };
    Ok((ServerInfo::parse(&text().await?), text().await?))
}

/// It is known how this allocator goes about it; and nobody's key is evicted, and nobody's write refused, for what is
/// only announced, as long as the value that the string replaces is still there.
fn may_take(info: &ServerInfo, size: u64) -> bool {
    let total = info.field("total_system_memory").and_then(|n| n.parse().ok());
    let room = info.maxmemory.filter(|max| *max > 0).into_iter().chain(total).min();
    info.field("mem_allocator").is_some_and(|a| a.starts_with("jemalloc"))
        && info.used_memory.zip(room).is_some_and(|(used, room)| used.saturating_add(size + BESIDES) <= room)
}

/// Where the replicas listen. Engines like this one are listed as well, with their end of the connection.
fn replicas(info: &ServerInfo, clients: &str) -> Vec<String> {
    let engines: Vec<&str> = clients
        .lines()
        .filter_map(|line| {
            let field = |key: &str| line.split(' ').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
            field("name")?.starts_with("duplex:").then(|| field("addr"))?
        })
        .collect();
    (0..)
        .map_while(|n| info.field(&format!("slave{n}")))
        .map(|line| {
            let part = |name: &str| line.split(',').find_map(|p| p.strip_prefix(name)?.strip_prefix('='));
            // One that does not tell can't be reached, and that is found there.
            join_address(part("ip").unwrap_or_default(), part("port").and_then(|p| p.parse().ok()).unwrap_or(0))
        })
        .filter(|address| !engines.contains(&address.as_str()))
        .collect()
}

/// Once more with less, if a server takes no argument of so much: its limit is that of a string as well.
async fn announced(dialer: &Dialer, address: &str, size: u64) -> Result<bool, NetError> {
    for size in [size + BESIDES, size] {
        if announce(dialer.raw(address).await?, size).await {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The server ends a connection that has ended here when it has read all that came before: by then the memory was taken
/// and is free again. One word in answer, and it has refused.
async fn announce(mut stream: RawStream, size: u64) -> bool {
    let begin = format!("*2\r\n$4\r\nECHO\r\n${size}\r\n");
    let sent = async {
        stream.write_all(begin.as_bytes()).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    if sent.await.is_err() {
        return false;
    }
    // A server that ends TLS without a word of farewell has ended it all the same.
    !matches!(stream.read(&mut [0; 64]).await, Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_those_that_are_no_engines() {
        let info = ServerInfo::parse(
            "role:master\r\nconnected_slaves:3\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=5,lag=0\r\n\
             slave1:ip=10.0.0.3,port=40112,state=online,offset=5,lag=1\r\nslave2:ip=10.0.0.4,port=7,state=wait_bgsave\r\n",
        );
        let clients =
            "id=3 addr=10.0.0.2:51000 fd=9 name= age=1\nid=4 addr=10.0.0.3:40112 fd=8 name=duplex:j:stream age=1\n";
        assert_eq!(replicas(&info, clients), ["10.0.0.2:6379", "10.0.0.4:7"]);
        assert_eq!(replicas(&info, ""), ["10.0.0.2:6379", "10.0.0.3:40112", "10.0.0.4:7"]);
    }

    #[test]
    fn nothing_is_announced_that_would_not_fit() {
        let info = |allocator: &str, max: u64| {
            ServerInfo::parse(&format!(
                "used_memory:1000\r\nmaxmemory:{max}\r\ntotal_system_memory:1000000000\r\nmem_allocator:{allocator}\r\n"
            ))
        };
        assert!(may_take(&info("jemalloc-5.3.0", 0), LEAST));
        assert!(!may_take(&info("libc", 0), LEAST));
        assert!(!may_take(&info("jemalloc-5.3.0", 0), 1_000_000_000), "more than the machine has");
        assert!(may_take(&info("jemalloc-5.3.0", 1000 + LEAST + BESIDES), LEAST));
        assert!(!may_take(&info("jemalloc-5.3.0", 999 + LEAST + BESIDES), LEAST));
        assert!(!may_take(&ServerInfo::parse(""), LEAST), "it does not tell");
    }
}
