//! One engine at a time: old connections are killed by their name before a control key is read, and the key's epoch
//! shuts out whoever comes back later.

use super::apply::control_key::ControlKey;
use super::core::parse_note;
use super::net::{Control, NetError};
use crate::model::Side;
use std::time::Duration;

/// Kills the clients whose name begins with one of these, and waits until the server no longer lists them. The asking
/// connection itself has to bear another name: nobody kills itself, and it would be waited for in vain.
pub async fn kill_clients(control: &mut Control, names: &[&str]) -> Result<(), NetError> {
    for _ in 0..50 {
        let list: String = match control.ask(redis::cmd("CLIENT").arg("LIST")).await {
            Ok(list) => list,
            // A proxy that has no CLIENT has no list to search; the epoch alone has to do there.
            Err(NetError::Server { .. }) => return Ok(()),
            Err(e) => return Err(e),
        };
        let found = ids_of(&list, names);
        if found.is_empty() {
            return Ok(());
        }
        // All at once: over a slow line each question costs its round trip. One that is gone already is an error.
        let mut kills = redis::pipe();
        for id in found {
            kills.cmd("CLIENT").arg("KILL").arg("ID").arg(id);
        }
        let _: redis::RedisResult<redis::Value> = kills.query_async(control).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The ids in a `CLIENT LIST` of those whose name begins with one of these.
fn ids_of<'a>(list: &'a str, names: &[&str]) -> Vec<&'a str> {
    let mut ids = Vec::new();
    for line in list.lines() {
        let field = |key: &str| line.split(' ').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
        if field("name").is_some_and(|n| names.iter().any(|name| n.starts_with(name))) {
            ids.extend(field("id"));
        }
    }
    ids
}

/// The control key's value as it is now.
pub async fn read_control_key(control: &mut Control, db: u32, key: &[u8]) -> Result<Option<ControlKey>, NetError> {
    let value: (Option<Vec<u8>>,) = in_db(control, db, |p| {
        p.cmd("GET").arg(key);
    })
    .await?;
    Ok(value.0.and_then(|v| ControlKey::parse(&v)))
}

/// Writes the control key by itself.
pub async fn write_control_key(control: &mut Control, db: u32, key: &[u8], value: &ControlKey) -> Result<(), NetError> {
    let mut text = bytes::BytesMut::new();
    value.write(&mut text);
    let _: (redis::Value,) = in_db(control, db, |p| {
        p.cmd("SET").arg(key).arg(&text[..]);
    })
    .await?;
    Ok(())
}

/// The open episodes that are noted at a site: (db, key, number, authority).
pub async fn read_notes(
    control: &mut Control,
    db: u32,
    key: &[u8],
) -> Result<Vec<(u32, Vec<u8>, u64, Side)>, NetError> {
    let notes: (Vec<(Vec<u8>, Vec<u8>)>,) = in_db(control, db, |p| {
        p.cmd("HGETALL").arg(key);
    })
    .await?;
    Ok(notes.0.iter().filter_map(|(f, v)| parse_note(f, v)).collect())
}

/// Deletes keys of ours.
pub async fn delete_keys(control: &mut Control, db: u32, keys: &[&[u8]]) -> Result<(), NetError> {
    let _: (redis::Value,) = in_db(control, db, |p| {
        p.cmd("DEL").arg(keys);
    })
    .await?;
    Ok(())
}

/// Asks in a database and returns to database 0, as one transaction.
pub async fn in_db<T: redis::FromRedisValue>(
    control: &mut Control,
    db: u32,
    commands: impl FnOnce(&mut redis::Pipeline),
) -> Result<T, NetError> {
    let mut pipe = redis::pipe();
    pipe.atomic();
    if db != 0 {
        pipe.cmd("SELECT").arg(db).ignore();
    }
    commands(&mut pipe);
    if db != 0 {
        pipe.cmd("SELECT").arg(0).ignore();
    }
    let address = control.address().to_owned();
    pipe.query_async(control).await.map_err(|e| NetError::from_redis(&address, "the control key", &e))
}

#[cfg(test)]
mod tests {
    use super::ids_of;

    #[test]
    fn only_clients_of_these_names_are_meant() {
        let list = "id=3 addr=h:1 laddr=h:2 fd=8 name=duplex:j1:apply age=1\nid=4 addr=h:1 name=duplex:j1:control db=0\n\
                    id=5 addr=h:1 name= db=0\nid=6 addr=h:1 name=duplex:j1:replica flags=S\nid=7 name=duplex:j2:apply\n";
        assert_eq!(ids_of(list, &["duplex:j1:apply", "duplex:j1:replica"]), ["3", "6"]);
        assert_eq!(ids_of(list, &["duplex:j1:apply"]), ["3"]);
        assert!(ids_of(list, &[]).is_empty());
    }
}
