//! A second reader of a server's replication stream: what really came back, whatever the product's counters say.

use super::{
    resp::{Argv, Client, Reply, encode, read_reply, show},
    server::Server,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// What a server executed as one: a bare command, or what stood between MULTI and EXEC.
pub type Unit = Vec<Argv>;

/// Reads the stream from the moment it was made on, until it is dropped.
pub struct Observer {
    seen: Arc<Mutex<Vec<Unit>>>,
    stream: TcpStream,
    closing: Arc<AtomicBool>,
}

impl Observer {
    /// Attaches as a replica would; returns when the snapshot has been read past.
    #[track_caller]
    pub fn of(server: &Server) -> Observer {
        let mut client = server.client();
        for line in ["REPLCONF listening-port 1", "REPLCONF capa eof capa psync2"] {
            client.run(line);
        }
        // A Valkey 9.1 wants to know before it sends what an older one couldn't read.
        client.call(&["REPLCONF", "version", "9.1.0"]);
        let mut out = Vec::new();
        encode(&mut out, &["PSYNC", "?", "-1"]);
        let (mut reader, mut writer) = client.into_parts();
        writer.write_all(&out).expect("send PSYNC");
        let first = line(&mut reader);
        assert!(first.starts_with("+FULLRESYNC"), "{}: PSYNC answered {first:?}", server.name);
        skip_snapshot(&mut reader);
        let (seen, closing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mut acks = writer.try_clone().expect("the connection");
        let stop = closing.clone();
        thread::spawn(move || {
            let mut ack = Vec::new();
            encode(&mut ack, &["REPLCONF", "ACK", "0"]);
            while !stop.load(Ordering::SeqCst) && acks.write_all(&ack).is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        let theirs = seen.clone();
        thread::spawn(move || follow(reader, &theirs));
        Observer { seen, stream: writer, closing }
    }

    /// Everything seen so far, PING, SELECT and REPLCONF left out.
    pub fn units(&self) -> Vec<Unit> {
        self.seen.lock().expect("what was seen").clone()
    }

    /// How many changes the engine brought from the other side so far: its commands, with a MSET counted by its keys,
    /// since plain SETs in a row come as one.
    pub fn brought_changes(&self) -> usize {
        let weight = |c: &Argv| if c[0].eq_ignore_ascii_case(b"MSET") { c.len() / 2 } else { 1 };
        let control = |c: &Argv| c.get(1).is_some_and(|k| k.starts_with(b"duplex:"));
        let units = self.seen.lock().expect("what was seen");
        units
            .iter()
            .filter(|u| u.iter().any(control))
            .map(|u| u.iter().filter(|c| !control(c)).map(weight).sum::<usize>())
            .sum()
    }

    /// The units that the engine wrote (one of their commands names a control key) and that hold anything else too:
    /// changes that came from the other side. One line each.
    pub fn brought(&self) -> Vec<String> {
        let ours = |c: &Argv| c.get(1).is_some_and(|k| k.starts_with(b"duplex:"));
        self.units()
            .iter()
            .filter(|u| u.iter().any(ours) && !u.iter().all(ours))
            .map(|u| u.iter().map(|c| c.iter().map(|a| show(a)).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>())
            .map(|commands| commands.join("; "))
            .collect()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// The next line that isn't empty: masters send newlines while they prepare a snapshot.
fn line(reader: &mut BufReader<TcpStream>) -> String {
    loop {
        let mut text = String::new();
        let read = reader.read_line(&mut text).expect("the master's answer");
        assert!(read > 0, "the master closed the connection");
        if !text.trim().is_empty() {
            return text.trim_end().to_owned();
        }
    }
}

fn skip_snapshot(reader: &mut BufReader<TcpStream>) {
    let head = line(reader);
    if let Some(mark) = head.strip_prefix("$EOF:") {
        let mark = mark.as_bytes();
        let mut tail: Vec<u8> = Vec::new();
        while tail != mark {
            let mut byte = [0];
            reader.read_exact(&mut byte).expect("the snapshot");
            if tail.len() == mark.len() {
                tail.remove(0);
            }
            tail.push(byte[0]);
        }
    } else {
        let length: u64 = head.trim_start_matches('$').parse().expect("a snapshot's length");
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).expect("the snapshot");
    }
}

fn follow(mut reader: BufReader<TcpStream>, seen: &Mutex<Vec<Unit>>) {
    let _ = reader.get_ref().set_read_timeout(None);
    let mut open: Option<Unit> = None;
    loop {
        match reader.fill_buf() {
            Ok([b'\n', ..]) => {
                reader.consume(1);
                continue;
            }
            Ok([_, ..]) => {}
            _ => return,
        }
        let Ok(Reply::Array(items)) = read_reply(&mut reader) else { return };
        let command: Argv = items.iter().map(Reply::bytes).collect();
        match command[0].to_ascii_uppercase().as_slice() {
            b"PING" | b"SELECT" | b"REPLCONF" => {}
            b"MULTI" => open = Some(Unit::new()),
            b"EXEC" => seen.lock().expect("what was seen").push(open.take().unwrap_or_default()),
            _ => match &mut open {
                Some(unit) => unit.push(command),
                None => seen.lock().expect("what was seen").push(vec![command]),
            },
        }
    }
}

/// A client that watches, for messages: not part of the stream.
pub fn subscriber(server: &Server, channel: &str) -> Client {
    let mut client = server.client();
    // Its reply says that the subscription holds.
    client.run(&format!("SUBSCRIBE {channel}"));
    client
}
