//! Space at a target in which a long string grows where it is.
//!
//! A string that comes in parts is moved by the server's allocator (jemalloc) each time the memory behind it is taken:
//! one call as long as all that is there takes to copy, 0.4 s at 500 MiB. Nor is there a command that makes a string of
//! that size without the kernel finding all of its memory in one call. But a connection that announces an argument
//! of that size is given a buffer for it at once, of which no byte is touched. When it is closed, its addresses stay
//! with the allocator, in one piece, and a string that begins there grows into them.
//!
//! It begins there if nothing else that is free has room for its beginning, since the allocator takes what it has had
//! longest. So others announce arguments as long as that beginning, until all such is theirs, and are closed when the string has
//! begun. Addresses are all that this takes; where the target counts them dear (`maxmemory`, little memory) it is not
//! done, and if it fails the string is written all the same.

use crate::engine::fence::kill_clients;
use crate::engine::net::{Dialer, NetError, RawStream, ServerInfo};
use crate::model::Account;
use futures::future::join_all;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: u64 = 1 << 20;
/// A shorter string has all of its room made in one call, of some 20 ms.
pub const LEAST: u64 = 40 * MIB;
/// How a string begins, call by call: up to here. Each zeroes the next 10 MiB, some 7 ms. From 8 MiB on the allocator
/// looks for it where it has the longest pieces.
pub const BEGINNING: [u64; 3] = [10 * MIB, 20 * MIB, 30 * MIB];
/// How long what others hold is, and how many do: first what is long, then what the string would begin in. A little less than
/// it takes itself, in the allocator's classes of sizes (10, 32 MiB) and with what servers before 7.0 add.
const FILLERS: [(u64, u64); 2] = [(29 * MIB, 48), (8 * MIB + MIB / 2, 48)];
/// What a server adds to a string that grows, and to a buffer.
const ADDED: u64 = MIB + 64 * 1024;
/// What servers take as one argument, unless told otherwise.
const USUAL_LONGEST: u64 = 512 * MIB;
/// For all of it. The string waits meanwhile.
const DEADLINE: Duration = Duration::from_secs(5);

/// Connections that hold what a string shall not begin in.
#[derive(Debug)]
pub struct Space {
    _fillers: Vec<RawStream>,
}

/// Makes space for a string of this length. To be dropped when the string has begun.
pub async fn make(dialer: &Dialer, address: &str, length: u64) -> Option<Space> {
    if dialer.instance().is_proxied() {
        return None;
    }
    match tokio::time::timeout(DEADLINE, made(dialer, address, length)).await {
        Ok(Ok(space)) => space,
        Ok(Err(error)) => {
            tracing::debug!(%error, length, "no space was made for a long string");
            None
        }
        Err(_) => {
            tracing::debug!(length, "space for a long string was not made in time");
            None
        }
    }
}

async fn made(dialer: &Dialer, address: &str, length: u64) -> Result<Option<Space>, NetError> {
    let named = |what: &str| dialer.named(&format!("{}-{what}", dialer.client_name()));
    let mut control = dialer.control(address).await?;
    let Some(asked) = Asked::of(&control.info().await?, length) else { return Ok(None) };
    let account = dialer.account().await?;
    let own = named("space");
    // First, so that it is given the piece that has been there longest of those that are long enough.
    let space = announce(&own, address, &account, asked.whole).await?;
    let filler = named("filler");
    let mut fillers = Vec::new();
    for (size, many) in asked.fillers {
        let more = (0..many).map(|_| announce(&filler, address, &account, size));
        fillers.extend(join_all(more).await.into_iter().flatten());
    }
    // Closing it would do, but nothing says when the server has seen to it.
    kill_clients(&mut control, &[own.client_name()]).await?;
    drop(space);
    Ok(Some(Space { _fillers: fillers }))
}

/// A connection that has a buffer of that size.
async fn announce(dialer: &Dialer, address: &str, account: &Account, size: u64) -> Result<RawStream, NetError> {
    let mut talk = dialer.begin_as(address, account).await?;
    talk.greeted(dialer.deadlines().response).await?;
    let (mut stream, _) = talk.into_parts();
    let io = |e| NetError::from_io(address, "announce a long argument", &e);
    // Both are read at once, so that the buffer is there when the answer is. Nothing ever follows.
    let words = format!("*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n${size}\r\n");
    stream.write_all(words.as_bytes()).await.map_err(io)?;
    stream.flush().await.map_err(io)?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.map_err(io)?;
    Ok(stream)
}

/// What a target is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// For the string itself.
    whole: u64,
    /// Size and number.
    fillers: [(u64, u64); 2],
}

impl Asked {
    /// Nothing where strings are not moved, or where the addresses might be missed.
    fn of(info: &ServerInfo, length: u64) -> Option<Asked> {
        let number = |name: &str| info.field(name).and_then(|n| n.parse::<u64>().ok());
        if !info.field("mem_allocator")?.starts_with("jemalloc") {
            return None;
        }
        let whole = length + ADDED;
        let whole = if length <= USUAL_LONGEST { whole.min(USUAL_LONGEST) } else { whole };
        // Kernels that promise no more than they have promise half of the memory by default.
        let system = number("total_system_memory")? / 2;
        let system = system.saturating_sub(number("used_memory_rss").or(info.used_memory)?);
        // Above its limit a server throws keys away or refuses writes.
        let limit = match info.maxmemory {
            Some(most) if most > 0 => most.saturating_sub(info.used_memory?),
            _ => u64::MAX,
        };
        let room = system.min(limit);
        if whole > room / 2 {
            return None;
        }
        // Nor may others be kept from connecting.
        let clients = match (number("maxclients"), number("connected_clients")) {
            (Some(most), Some(now)) => most.saturating_sub(now) / 4,
            _ => u64::MAX,
        };
        let (mut room, mut clients) = ((room / 2).saturating_sub(whole), clients);
        let fillers = FILLERS.map(|(size, many)| {
            let many = many.min(room / size).min(clients);
            room -= many * size;
            clients -= many;
            (size, many)
        });
        Some(Asked { whole, fillers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn asked(fields: &[(&str, u64)], length: u64) -> Option<Asked> {
        let mut text = "mem_allocator:jemalloc-5.3.0\r\n".to_owned();
        for (name, value) in fields {
            text += &format!("{name}:{value}\r\n");
        }
        Asked::of(&ServerInfo::parse(&text), length)
    }

    fn taken(asked: &Asked) -> u64 {
        asked.whole + asked.fillers.iter().map(|(size, n)| size * n).sum::<u64>()
    }

    #[test]
    fn a_server_with_much_memory_is_asked_for_all() {
        let fields =
            [("used_memory", GIB), ("used_memory_rss", GIB), ("maxmemory", 0), ("total_system_memory", 32 * GIB)];
        assert_eq!(asked(&fields, 100 * MIB), Some(Asked { whole: 100 * MIB + ADDED, fillers: FILLERS }));
        // No argument may be longer, nor is any string but where the limit has been raised.
        assert_eq!(asked(&fields, 512 * MIB).map(|a| a.whole), Some(512 * MIB));
        assert_eq!(asked(&fields, 600 * MIB).map(|a| a.whole), Some(600 * MIB + ADDED));
    }

    #[test]
    fn no_server_is_asked_for_what_it_might_miss() {
        let small =
            [("used_memory", GIB), ("used_memory_rss", GIB), ("maxmemory", 0), ("total_system_memory", 4 * GIB)];
        assert_eq!(asked(&small, 520 * MIB), None);
        let some = asked(&small, 100 * MIB).expect("there is room for it");
        assert!(taken(&some) <= GIB / 2, "{some:?}");
        let limited = [
            ("used_memory", 7 * GIB),
            ("used_memory_rss", GIB),
            ("maxmemory", 8 * GIB),
            ("total_system_memory", 64 * GIB),
        ];
        assert_eq!(asked(&limited, 600 * MIB), None);
        let some = asked(&limited, 100 * MIB).expect("there is room for it");
        assert!(taken(&some) <= GIB / 2, "{some:?}");
        let full = [
            ("used_memory", GIB),
            ("used_memory_rss", GIB),
            ("total_system_memory", 64 * GIB),
            ("maxclients", 100),
            ("connected_clients", 96),
        ];
        assert_eq!(asked(&full, 100 * MIB).map(|a| a.fillers.map(|(_, n)| n)), Some([1, 0]));
        let silent = ServerInfo::parse("mem_allocator:jemalloc-5.3.0\r\nused_memory:1\r\n");
        assert_eq!(Asked::of(&silent, 100 * MIB), None);
        let libc = ServerInfo::parse("mem_allocator:libc\r\nused_memory:1\r\ntotal_system_memory:99999999999\r\n");
        assert_eq!(Asked::of(&libc, 100 * MIB), None);
    }
}
