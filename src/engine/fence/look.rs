//! What a server is asked where a run begins, or a lost connection is mended: who else is connected for this job, what the
//! server is, and what an engine before us has left there. In one go, since over a slow line each question by itself
//! costs its round trip; in this order, since what stands behind a list without an old connection is final.

use super::ids_of;
use crate::engine::apply::control_key::ControlKey;
use crate::engine::core::parse_note;
use crate::engine::net::{Control, Conversation, Dialer, NetError, RawStream, ServerError, ServerInfo, Token};
use crate::model::{ReplId, Side};
use futures::future::try_join;
use std::time::{Duration, Instant};

/// An open episode as it was noted: database, key, number, authority.
pub type Note = (u32, Vec<u8>, u64, Side);

/// What an engine before us left at a site, where slots play no part.
#[derive(Debug, Clone, Default)]
pub struct Left {
    pub key: Option<ControlKey>,
    pub notes: Vec<Note>,
}

/// Whose connections are looked for, and where what they left is.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Their names begin with one of these.
    pub before: &'a [&'a str],
    pub db: u32,
    pub key: &'a [u8],
    pub notes: &'a [u8],
}

/// What was seen.
pub struct Look {
    pub control: Control,
    pub info: ServerInfo,
    pub round_trip: Duration,
    /// An engine before us is still connected.
    pub not_alone: bool,
    /// What it has left. `None`: it may still be writing, or it could not be asked so.
    pub left: Option<Left>,
}

/// Dials and looks.
pub async fn look(dialer: &Dialer, address: &str, asked: Asked<'_>) -> Result<Look, NetError> {
    let mut talk = dialer.begin(address).await?;
    let wait = dialer.deadlines().response;
    let began = Instant::now();
    ask(&mut talk, wait, asked).await?;
    let list = read_list(&mut talk, wait).await?;
    let round_trip = began.elapsed();
    let info = match talk.token(wait).await? {
        Token::Error(text) => return Err(NetError::from_reply(address, "INFO", &text)),
        Token::Bulk(text) => ServerInfo::parse(&String::from_utf8_lossy(&text)),
        _ => ServerInfo::parse(""),
    };
    let left = read_left(&mut talk, wait, asked.db).await?;
    let not_alone = list.is_some_and(|list| !ids_of(&list, asked.before).is_empty());
    let left = left.filter(|_| !not_alone);
    Ok(Look { control: dialer.over(talk).await?, info, round_trip, not_alone, left })
}

/// A connection for writing.
pub struct Opened {
    pub stream: RawStream,
    /// The control key, where it was asked for.
    pub key: Option<ControlKey>,
    /// Behind the address is another server than before, or the same with another past.
    pub new_history: bool,
}

/// Opens the first connection for writing to a site, in a database where one is given.
pub async fn open(dialer: &Dialer, address: &str, db: Option<u32>, known: Option<ReplId>) -> Result<Opened, NetError> {
    let mut talk = dialer.begin(address).await?;
    let wait = dialer.deadlines().response;
    let number = db.unwrap_or(0).to_string();
    let questions: [&[&[u8]]; 2] = [&[b"INFO", b"replication"], &[b"SELECT", number.as_bytes()]];
    let select = db.is_some_and(|db| db != 0);
    talk.send_all(&questions[..1 + usize::from(select)], wait).await?;
    let new_history = !is_history(&talk.token(wait).await?, known);
    if select {
        selected(address, talk.token(wait).await?)?;
    }
    Ok(Opened { stream: talk.into_parts().0, key: None, new_history })
}

/// Opens another in place of one that was lost: that one is dead by then, and the control key says what it applied.
/// `asking` has the name under which it is looked for, since nobody kills himself.
pub async fn open_again(
    dialer: &Dialer,
    asking: &Dialer,
    address: &str,
    asked: Asked<'_>,
    known: Option<ReplId>,
) -> Result<Opened, NetError> {
    let mut talk = asking.begin(address).await?;
    let wait = dialer.deadlines().response;
    let db = asked.db.to_string();
    let mut old: Vec<String> = Vec::new();
    for pass in 0..PASSES {
        let mut requests: Vec<Vec<&[u8]>> = Vec::new();
        if pass > 0 {
            requests.push(vec![b"CLIENT", b"SETNAME", asking.client_name().as_bytes()]);
            requests.extend(old.iter().map(|id| vec![&b"CLIENT"[..], b"KILL", b"ID", id.as_bytes()]));
        }
        let aside = requests.len();
        requests.push(vec![b"CLIENT", b"LIST"]);
        requests.push(vec![b"INFO", b"replication"]);
        if asked.db != 0 {
            requests.push(vec![b"SELECT", db.as_bytes()]);
        }
        requests.push(vec![b"GET", asked.key]);
        requests.push(vec![b"CLIENT", b"SETNAME", dialer.client_name().as_bytes()]);
        talk.send_all(&requests.iter().map(Vec::as_slice).collect::<Vec<_>>(), wait).await?;
        for _ in 0..aside {
            talk.token(wait).await?;
        }
        let list = read_list(&mut talk, wait).await?;
        let new_history = !is_history(&talk.token(wait).await?, known);
        if asked.db != 0 {
            selected(address, talk.token(wait).await?)?;
        }
        let key = match talk.token(wait).await? {
            Token::Bulk(text) => ControlKey::parse(&text),
            Token::Error(text) => return Err(NetError::from_reply(address, "GET", &text)),
            _ => None,
        };
        talk.token(wait).await?;
        old = list.map_or(Vec::new(), |list| ids_of(&list, asked.before).into_iter().map(str::to_owned).collect());
        if old.is_empty() {
            return Ok(Opened { stream: talk.into_parts().0, key, new_history });
        }
        if pass > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
    }
    Err(NetError::TimedOut { address: address.to_owned(), doing: "shut out the connection before", waited: wait })
}

/// The site's own history is this one, as far as it tells.
fn is_history(info: &Token, known: Option<ReplId>) -> bool {
    let (Token::Bulk(text), Some(known)) = (info, known) else { return true };
    ServerInfo::parse(&String::from_utf8_lossy(text)).replid.is_none_or(|now| now == known)
}

/// Kills the connections of an engine before us, waits until none is listed, and reads what it left.
pub async fn shut_out(control: &mut Control, asked: Asked<'_>) -> Result<Left, NetError> {
    super::kill_clients(control, asked.before).await?;
    let mut other = control.clone();
    let key = super::read_control_key(control, asked.db, asked.key);
    let (key, notes) = try_join(key, super::read_notes(&mut other, asked.db, asked.notes)).await?;
    Ok(Left { key, notes })
}

/// How often it is looked whether a killed connection is gone, and how long between.
pub(super) const PASSES: u32 = 50;
pub(super) const BETWEEN: Duration = Duration::from_millis(10);

async fn ask(talk: &mut Conversation, wait: Duration, asked: Asked<'_>) -> Result<(), NetError> {
    let db = asked.db.to_string();
    let mut requests: Vec<Vec<&[u8]>> = vec![vec![b"CLIENT", b"LIST"], vec![b"INFO"]];
    if asked.db != 0 {
        requests.push(vec![b"SELECT", db.as_bytes()]);
    }
    requests.push(vec![b"GET", asked.key]);
    requests.push(vec![b"HGETALL", asked.notes]);
    if asked.db != 0 {
        requests.push(vec![b"SELECT", b"0"]);
    }
    talk.send_all(&requests.iter().map(Vec::as_slice).collect::<Vec<_>>(), wait).await
}

/// A proxy that has no CLIENT has no list to search; the epoch alone has to do there.
async fn read_list(talk: &mut Conversation, wait: Duration) -> Result<Option<String>, NetError> {
    Ok(match talk.token(wait).await? {
        Token::Bulk(list) => Some(String::from_utf8_lossy(&list).into_owned()),
        Token::Error(text) if ServerError::classify(&text) == ServerError::NoPerm => {
            return Err(NetError::from_reply(talk.address(), "CLIENT LIST", &text));
        }
        _ => None,
    })
}

/// `None`: a question was refused. It is asked again by itself, so that the error names it.
async fn read_left(talk: &mut Conversation, wait: Duration, db: u32) -> Result<Option<Left>, NetError> {
    let mut refused = db != 0 && matches!(talk.token(wait).await?, Token::Error(_));
    let key = match talk.token(wait).await? {
        Token::Bulk(text) => ControlKey::parse(&text),
        other => {
            refused |= matches!(other, Token::Error(_));
            None
        }
    };
    let mut notes = Vec::new();
    match talk.token(wait).await? {
        Token::Array(count) => {
            for _ in 0..count / 2 {
                if let (Token::Bulk(field), Token::Bulk(value)) = (talk.token(wait).await?, talk.token(wait).await?) {
                    notes.extend(parse_note(&field, &value));
                }
            }
        }
        _ => refused = true,
    }
    if db != 0 {
        talk.token(wait).await?;
    }
    Ok((!refused).then_some(Left { key, notes }))
}

fn selected(address: &str, answer: Token) -> Result<(), NetError> {
    match answer {
        Token::Error(text) => Err(NetError::from_reply(address, "SELECT", &text)),
        _ => Ok(()),
    }
}
