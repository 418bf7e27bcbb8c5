//! Data of every type, and writers that are busy on both sides with some of the same keys.

use super::servers::Server;
use crate::cli::output::{Ending, problem};
use crate::model::ExitCode;
use redis::{Cmd, Pipeline, aio::MultiplexedConnection, cmd};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// Every command and every connection.
const DEADLINE: Duration = Duration::from_secs(10);
/// Commands sent at once while filling.
const BATCH: u64 = 500;
/// Pauses of the writers, so that a rate is a few commands each time.
const BEAT: Duration = Duration::from_millis(20);
/// Between two writes of one key at both sides.
const CLASH: Duration = Duration::from_millis(400);

fn failed(address: &str, error: impl std::fmt::Display) -> Ending {
    problem(ExitCode::Failed, format!("the demo's server {address} did not do its part: {error}"), "try again")
}

async fn connect(address: &str) -> Result<MultiplexedConnection, Ending> {
    let client = redis::Client::open(format!("redis://{address}/")).map_err(|e| failed(address, e))?;
    match timeout(DEADLINE, client.get_multiplexed_async_connection()).await {
        Ok(connection) => connection.map_err(|e| failed(address, e)),
        Err(_) => Err(failed(address, "no answer")),
    }
}

async fn send(address: &str, connection: &mut MultiplexedConnection, pipe: &Pipeline) -> Result<(), Ending> {
    match timeout(DEADLINE, pipe.query_async::<()>(connection)).await {
        Ok(done) => done.map_err(|e| failed(address, e)),
        Err(_) => Err(failed(address, "no answer")),
    }
}

/// Puts `keys` keys of all types into a server.
pub async fn fill(server: &Server, keys: u64) -> Result<(), Ending> {
    let address = server.address();
    let mut connection = connect(&address).await?;
    let mut done = 0;
    while done < keys {
        let mut pipe = redis::pipe();
        for n in done..(done + BATCH).min(keys) {
            pipe.add_command(first(n)).ignore();
        }
        send(&address, &mut connection, &pipe).await?;
        done += BATCH;
    }
    Ok(())
}

/// A command from its words.
fn words(line: String) -> Cmd {
    let mut words = line.split(' ');
    let mut command = cmd(words.next().unwrap_or("PING"));
    for word in words {
        command.arg(word);
    }
    command
}

/// The command that makes the n-th key.
fn first(n: u64) -> Cmd {
    words(match n % 9 {
        0 => format!("SET user:{n} {{\"name\":\"user-{n}\"}}"),
        1 => format!("HSET cart:{n} apples 3 pears 2"),
        2 => format!("RPUSH queue:{n} one two three"),
        3 => format!("SADD tags:{n} red green blue"),
        4 => format!("ZADD board:{n} 1 ann 2.5 bob"),
        5 => format!("XADD log:{n} * event login"),
        6 => format!("PFADD visits:{n} a b c"),
        7 => format!("SETBIT days:{n} {} 1", n % 365),
        _ => format!("SETEX session:{n} 3600 token"),
    })
}

/// Writes to a server until told to stop, `rate` commands a second; a few keys are written at both sides.
///
/// Each side appends to streams of its own (`site`): one server's entry ids would be refused by the other.
pub async fn write(address: String, site: &'static str, rate: u64, stop: CancellationToken) {
    let Ok(mut connection) = connect(&address).await else { return };
    let mut tick = interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // Commands that are due, in thousandths.
    let mut due = 0u64;
    loop {
        tokio::select! {
            _ = stop.cancelled() => return,
            _ = tick.tick() => due += rate * BEAT.as_millis() as u64,
        }
        if due < 1_000 {
            continue;
        }
        let mut pipe = redis::pipe();
        for _ in 0..due / 1_000 {
            pipe.add_command(next(site)).ignore();
        }
        due %= 1_000;
        if send(&address, &mut connection, &pipe).await.is_err() {
            return;
        }
    }
}

/// Writes the same keys at both sides at the same moment, now and then, so that there are conflicts to be watched.
pub async fn clash(sides: [String; 2], stop: CancellationToken) {
    let (Ok(mut left), Ok(mut right)) = (connect(&sides[0]).await, connect(&sides[1]).await) else { return };
    let mut tick = interval(CLASH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let key = fastrand::u64(0..8);
        let write = |from: &str| {
            let mut pipe = redis::pipe();
            pipe.add_command(words(format!("SET contested:{key} {from}-{}", fastrand::u32(..)))).ignore();
            pipe
        };
        let (at_left, at_right) = (write("source"), write("target"));
        let both = tokio::join!(send(&sides[0], &mut left, &at_left), send(&sides[1], &mut right, &at_right));
        if both.0.is_err() || both.1.is_err() {
            return;
        }
    }
}

fn next(site: &str) -> Cmd {
    let n = fastrand::u64(0..2_000);
    let hot = fastrand::u64(0..20);
    words(match fastrand::u64(0..12) {
        0 => format!("INCR hits:{hot}"),
        1 => format!("SET page:{hot} {}", fastrand::u64(..)),
        2 => format!("SET user:{} {}", n * 9, fastrand::u64(..)),
        3 => format!("HSET cart:{} item{hot} {n}", n * 9 + 1),
        4 => format!("HINCRBY stock:{hot} left -1"),
        5 => format!("LPUSH inbox:{n} {n}"),
        6 => format!("LTRIM inbox:{n} 0 99"),
        7 => format!("SADD tags:{} {hot}", n * 9 + 3),
        8 => format!("ZINCRBY board:today 1 player{n}"),
        9 => format!("XADD events:{site}:{hot} MAXLEN ~ 1000 * n {n}"),
        10 => format!("SETEX session:{n} 60 {}", fastrand::u64(..)),
        _ => format!("DEL session:{n}"),
    })
}

/// Waits until both servers hold the same number of keys, or the time is over: the comparison tells the rest.
pub async fn settle(left: &Server, right: &Server, within: Duration) -> Result<(), Ending> {
    let (a, b) = (left.address(), right.address());
    let (mut first, mut second) = (connect(&a).await?, connect(&b).await?);
    let mut tick = interval(Duration::from_millis(200));
    let same = async {
        let mut still = 0;
        while still < 5 {
            tick.tick().await;
            let sizes = (size(&mut first).await, size(&mut second).await);
            // Each side has one control key of its own.
            still = if sizes.0.is_some() && sizes.0 == sizes.1 { still + 1 } else { 0 };
        }
    };
    _ = timeout(within, same).await;
    Ok(())
}

async fn size(connection: &mut MultiplexedConnection) -> Option<u64> {
    timeout(DEADLINE, cmd("DBSIZE").query_async::<u64>(connection)).await.ok()?.ok()
}
