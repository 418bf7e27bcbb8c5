//! Can every address be talked to, and does it let us in.

use super::{Context, Finding, SideContext, rights};
use crate::{
    engine::{
        net::{Dialer, NetError, knock},
        probe::server::{Refusal, Server, text},
    },
    model::{AccountSource, CheckState},
};
use futures::future::{join_all, try_join_all};
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long an address may take to accept, and then to answer. Two of them lie within an item's ten seconds.
const PATIENCE: Duration = Duration::from_secs(4);

const WHY_REACH: &str = "the sync needs a lasting connection to every server of both instances";

/// Every address of both instances: it accepts, and what answers is Redis. Where an instance has several (sentinels, a
/// master and its replicas), one that does not is a warning as long as another does.
pub(super) async fn reachable(cx: &Context) -> Finding {
    let tries = cx.both().iter().flat_map(|side| {
        let instance = cx.job.instance(side.side);
        instance.addresses.iter().map(move |address| async move {
            let found = if instance.tls.is_some() {
                tls_answer(&side.dialer, address).await
            } else {
                plain_answer(address).await
            };
            match found {
                Ok(seen) => Finding::passed(format!("{} {address} {seen}", side.side)).at(side.side),
                Err((seen, remedy)) => {
                    Finding::failed(format!("{} {address}: {seen}", side.side), WHY_REACH, remedy).at(side.side)
                }
            }
        })
    });
    let mut findings = join_all(tries).await;
    for side in cx.both() {
        let of_side = |f: &Finding| f.side == Some(side.side);
        if findings.iter().any(|f| of_side(f) && f.state == CheckState::Passed) {
            for f in findings.iter_mut().filter(|f| of_side(f) && f.state == CheckState::Failed) {
                f.state = CheckState::Warning;
            }
        }
    }
    for side in cx.both() {
        if cx.job.instance(side.side).addresses.is_empty() {
            let remedy = format!("give the {} an address, host:port", side.side);
            findings
                .push(Finding::failed(format!("the {} has no address", side.side), WHY_REACH, remedy).at(side.side));
        }
    }
    Finding::all(findings)
}

type Answer = Result<String, (String, String)>;

/// Connects and sends an inline PING: any reply in Redis's manner will do, an error too.
async fn plain_answer(address: &str) -> Answer {
    let start = Instant::now();
    let mut stream = accept(address).await?;
    let connected = start.elapsed();
    let start = Instant::now();
    let mut reply = Vec::with_capacity(256);
    let exchange = async {
        stream.write_all(b"PING\r\n").await?;
        while !reply.contains(&b'\n') && reply.len() < 4096 {
            if stream.read_buf(&mut reply).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    let outcome = timeout(PATIENCE, exchange).await;
    let ping = start.elapsed();
    let line = String::from_utf8_lossy(reply.split(|b| *b == b'\n').next().unwrap_or_default()).trim_end().to_owned();
    let shown: String = line.chars().filter(|c| !c.is_control()).take(60).collect();
    if reply.first() == Some(&0x15) || reply.first() == Some(&0x16) {
        return Err((
            "it accepts and answers with a TLS record".into(),
            format!("{address} speaks TLS: set `tls = true` for this instance"),
        ));
    }
    if line.starts_with("-DENIED") {
        return Err((
            format!("it answers {shown:?}"),
            "the server runs in protected mode and takes no connections from other hosts: give it a password and \
             `protected-mode no`, or bind it to an address that we may use"
                .into(),
        ));
    }
    if line.starts_with("-ERR max number of clients") {
        return Err((
            format!("it answers {shown:?}"),
            format!("raise the limit: redis-cli {} CONFIG SET maxclients 20000", cli(address)),
        ));
    }
    if line.starts_with("+PONG") || line.starts_with('-') {
        return Ok(format!("connected in {} ms, answers in {} ms", millis(connected), millis(ping)));
    }
    if !reply.is_empty() {
        return Err((
            format!("it accepts, but what answers is not Redis: {shown:?}"),
            format!("another service listens at {address}: look at the host and the port"),
        ));
    }
    match outcome {
        Err(_) => Err((
            format!("it accepts, but did not answer PING within {} s", PATIENCE.as_secs()),
            format!(
                "look at what listens at {address}: a server that hangs, a proxy without a server behind it, or one \
                 that waits for TLS (then set `tls = true`)"
            ),
        )),
        Ok(outcome) => Err((
            match outcome {
                Ok(()) => "it accepts, then closes the connection without an answer".into(),
                Err(e) => format!("it accepts, then the connection breaks: {e}"),
            },
            format!(
                "{address} does not let this host talk: add our address to its allow list (security group, \
                 `bind`, firewall); if it speaks TLS, set `tls = true`"
            ),
        )),
    }
}

/// With TLS the dialer's own handshake is the test; a refusal of the account is a matter of the next item.
async fn tls_answer(dialer: &Dialer, address: &str) -> Answer {
    let start = Instant::now();
    drop(accept(address).await?);
    let connected = start.elapsed();
    let start = Instant::now();
    match timeout(PATIENCE, dialer.control(address)).await {
        Ok(Ok(_)) => {
            Ok(format!("connected in {} ms, TLS and answer in {} ms", millis(connected), millis(start.elapsed())))
        }
        Ok(Err(e)) if is_account_error(&e) => Ok(format!("connected in {} ms with TLS", millis(connected))),
        Ok(Err(e)) => Err(e.parts()),
        Err(_) => Err((
            format!("it accepts, but TLS was not agreed within {} s", PATIENCE.as_secs()),
            format!("look whether {address} speaks TLS; if not, leave `tls` out"),
        )),
    }
}

async fn accept(address: &str) -> Result<TcpStream, (String, String)> {
    match timeout(PATIENCE, knock(address)).await {
        Ok(Ok(stream)) => {
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => Err((
            "the port is closed (connection refused)".into(),
            format!("start the server, or correct the port; nothing listens at {address}"),
        )),
        Ok(Err(e)) if e.kind() == ErrorKind::InvalidInput => {
            Err((format!("not an address: {e}"), "write the address as host:port, IPv6 as [::1]:6379".into()))
        }
        Ok(Err(e)) if is_lookup(&e) => Err((
            format!("the host's name can't be resolved: {e}"),
            format!("correct the host in {address}, or the DNS of this machine"),
        )),
        Ok(Err(e)) => Err((
            format!("can't connect: {e}"),
            format!("look at the route to {address}: ip route get, traceroute, the firewalls on the way"),
        )),
        Err(_) => Err((
            format!("no answer within {} s: packets are dropped on the way", PATIENCE.as_secs()),
            format!(
                "let this host through to {address}: its allow list or security group, the firewalls on the way, \
                 and the route back"
            ),
        )),
    }
}

fn is_lookup(e: &std::io::Error) -> bool {
    let text = e.to_string();
    text.contains("lookup") || text.contains("resolve") || text.contains("nodename")
}

const WHY_ACCOUNT: &str = "without an account the server runs no command for us";

/// Logs in at both instances and keeps the connections for the items to come.
pub(super) async fn credentials(cx: &Context) -> Finding {
    Finding::all(join_all(cx.both().iter().map(|side| login(cx, side))).await)
}

async fn enter(side: &SideContext, address: &str) -> Result<Server, NetError> {
    let server = Server::new(side.dialer.control(address).await?);
    // A server that asks for a password lets anybody connect; only a command tells.
    match server.ask(&redis::cmd("PING")).await {
        // A user without the right to PING is logged in all the same: the rights are another item.
        Err(Refusal::Refused(line)) if !line.starts_with("NOPERM") => {
            Err(NetError::from_reply(&server.address, "PING", &line))
        }
        Err(Refusal::Broken(seen)) => {
            Err(NetError::Io { address: server.address.clone(), doing: "read an answer", seen })
        }
        _ => Ok(server),
    }
}

async fn login(cx: &Context, side: &SideContext) -> Finding {
    let instance = cx.job.instance(side.side);
    let who = side.side;
    let connected = async {
        let masters = side.dialer.masters().await?;
        // Every shard of a cluster lets us in, or none does.
        let mut servers = try_join_all(masters.iter().map(|m| enter(side, &m.address))).await?.into_iter();
        let first = servers.next().ok_or(NetError::NoAddress)?;
        let _ = side.others.set(servers.collect());
        Ok::<Server, NetError>(first)
    };
    let server = match timeout(PATIENCE * 2, connected).await {
        Ok(Ok(server)) => server,
        Ok(Err(e)) => {
            let (seen, remedy) = e.parts();
            let version = match lacks_right(&e) {
                Some(address) => side.dialer.version(address).await,
                None => None,
            };
            let remedy = account_remedy(cx, side, &e, version).unwrap_or(remedy);
            return Finding::failed(format!("{who}: {seen}"), WHY_ACCOUNT, remedy).at(who);
        }
        Err(_) => {
            return Finding::failed(
                format!("{who}: no login within {} s", PATIENCE.as_secs() * 2),
                WHY_ACCOUNT,
                "look at the instance's load, then run the item again",
            )
            .at(who);
        }
    };
    let mut whoami = redis::cmd("ACL");
    whoami.arg("WHOAMI");
    let user = server.ask(&whoami).await.ok().and_then(|v| text(&v));
    let seen = match user {
        Some(user) => format!("{who} {}: logged in as user {user}", server.address),
        None if instance.account == AccountSource::None => format!("{who} {}: asks for no password", server.address),
        None => format!("{who} {}: logged in", server.address),
    };
    let _ = side.server.set(server);
    Finding::passed(seen).at(who)
}

/// Whether an error is about the account, not about the way to the server.
fn is_account_error(e: &NetError) -> bool {
    match e {
        NetError::Account { .. }
        | NetError::WrongPassword { .. }
        | NetError::PasswordNeeded { .. }
        | NetError::NoPasswordSet { .. }
        | NetError::NoPermission { .. } => true,
        NetError::NoneAnswered { last, .. } => is_account_error(last),
        _ => false,
    }
}

/// The server that lacks a right for us, if that is the error.
fn lacks_right(e: &NetError) -> Option<&str> {
    match e {
        NetError::NoPermission { address, .. } => Some(address),
        NetError::NoneAnswered { last, .. } => lacks_right(last),
        _ => None,
    }
}

/// The exact lines for what the dialer can only name.
fn account_remedy(cx: &Context, side: &SideContext, e: &NetError, version: Option<(u32, u32)>) -> Option<String> {
    match e {
        NetError::WrongPassword { address, .. } if is_sentinel(cx, side, address) => Some(format!(
            "correct the {}'s sentinel_account, the account of the sentinels themselves: try it with `redis-cli {} \
             --user <user> --askpass PING`",
            side.side,
            cli(address)
        )),
        NetError::PasswordNeeded { address } if is_sentinel(cx, side, address) => Some(format!(
            "give the {} the account of its sentinels: sentinel_account = \"<user>:<password>\"",
            side.side
        )),
        NetError::NoPermission { address, .. } if is_sentinel(cx, side, address) => Some(
            "at the sentinels, run as an administrator: ACL SETUSER <user> +ping +client|setname \
             +sentinel|get-master-addr-by-name +sentinel|master +sentinel|masters"
                .into(),
        ),
        NetError::WrongPassword { address, .. } => Some(format!(
            "correct the {}'s account: try it with `redis-cli {} --user <user> --askpass PING`; run as an \
             administrator, `ACL LIST` shows which users there are and whether they are on",
            side.side,
            cli(address)
        )),
        NetError::PasswordNeeded { .. } => {
            Some(format!("give the {} an account: account = \"<user>:<password>\"", side.side))
        }
        NetError::NoPermission { address, .. } => {
            let user = rights::configured_user(cx, side.side).unwrap_or_else(|| "default".into());
            Some(format!(
                "all that a sync needs, run as an administrator: redis-cli {} ACL SETUSER {user} {}",
                cli(address),
                rights::whole_grant(cx, side.side, version, &[])
            ))
        }
        NetError::Server { doing, .. } if doing == "CLIENT SETNAME" => Some(
            "a server knows this command: if this is a proxy in front of a cluster, set `topology = \"proxy\"`".into(),
        ),
        NetError::NoneAnswered { last, .. } => account_remedy(cx, side, last, version),
        _ => None,
    }
}

/// The error came from a sentinel, not from the master.
fn is_sentinel(cx: &Context, side: &SideContext, address: &str) -> bool {
    let instance = cx.job.instance(side.side);
    instance.may_be_sentinels() && instance.addresses.iter().any(|a| a == address)
}

/// `-h host -p port`, as `redis-cli` takes them.
pub(super) fn cli(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((host, port)) => format!("-h {} -p {port}", host.trim_matches(['[', ']'])),
        None => format!("-h {address}"),
    }
}

fn millis(d: Duration) -> String {
    format!("{:.1}", d.as_secs_f64() * 1000.0)
}
