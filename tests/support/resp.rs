//! A small RESP2 client over a blocking socket. It shares nothing with the product's decoder, so that a fault there
//! can't hide itself here. Connect, read and write have deadlines.

use super::words::words;
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// What a server answers.
#[derive(Clone, PartialEq)]
pub enum Reply {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Reply>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Status(s) => write!(f, "+{s}"),
            Reply::Error(e) => write!(f, "-{e}"),
            Reply::Int(n) => write!(f, "{n}"),
            Reply::Bulk(b) => write!(f, "{:?}", show(b)),
            Reply::Nil => f.write_str("nil"),
            Reply::Array(items) => f.debug_list().entries(items).finish(),
        }
    }
}

/// Bytes for a message: readable, escaped, cut at 120 bytes.
pub fn show(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(120)];
    let more = if cut.len() < bytes.len() { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    format!("{}{more}", cut.escape_ascii())
}

impl Reply {
    /// The text or bytes of a status or a bulk; empty for nil.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Reply::Status(s) => s.clone().into_bytes(),
            Reply::Bulk(b) => b.clone(),
            Reply::Int(n) => n.to_string().into_bytes(),
            Reply::Nil => Vec::new(),
            other => panic!("expected a text, got {other:?}"),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// An integer, also where it came as text.
    pub fn int(&self) -> i64 {
        match self {
            Reply::Int(n) => *n,
            other => other.text().parse().unwrap_or_else(|_| panic!("expected an integer, got {other:?}")),
        }
    }

    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::Array(items) => items,
            Reply::Nil => &[],
            other => panic!("expected an array, got {other:?}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }
}

/// A command as a list of arguments.
pub type Argv = Vec<Vec<u8>>;

/// Appends one command in RESP.
pub fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for a in args {
        let a = a.as_ref();
        out.extend_from_slice(format!("${}\r\n", a.len()).as_bytes());
        out.extend_from_slice(a);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads one reply.
pub fn read_reply(from: &mut impl BufRead) -> io::Result<Reply> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let body = String::from_utf8_lossy(line.get(1..line.len().saturating_sub(2)).unwrap_or_default()).into_owned();
    let number = || body.parse::<i64>().map_err(|_| bad(format!("not a number: {body:?}")));
    Ok(match line[0] {
        b'+' => Reply::Status(body),
        b'-' => Reply::Error(body),
        b':' => Reply::Int(number()?),
        b'$' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let mut data = vec![0; length + 2];
                from.read_exact(&mut data)?;
                data.truncate(length);
                Reply::Bulk(data)
            }
        },
        b'*' => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => Reply::Array((0..length).map(|_| read_reply(from)).collect::<io::Result<_>>()?),
        },
        _ => return Err(bad(format!("not RESP: {:?}", show(&line)))),
    })
}

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    out: Vec<u8>,
}

impl Client {
    /// Connects to `127.0.0.1:port`; panics where nobody listens.
    #[track_caller]
    pub fn to(port: u16) -> Client {
        Client::try_to(port).unwrap_or_else(|e| panic!("connect to 127.0.0.1:{port}: {e}"))
    }

    pub fn try_to(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Client { reader: BufReader::with_capacity(1 << 16, stream.try_clone()?), writer: stream, out: Vec::new() })
    }

    /// How long a read may take from here on.
    pub fn patience(&self, limit: Duration) {
        self.writer.set_read_timeout(Some(limit)).expect("set the read timeout");
    }

    /// Puts a command into the pipeline without sending it.
    pub fn queue<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        encode(&mut self.out, args);
    }

    /// Sends what was queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    pub fn read(&mut self) -> io::Result<Reply> {
        read_reply(&mut self.reader)
    }

    /// One command, its reply; a server's error is a reply.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        self.queue(args);
        self.flush()?;
        self.read()
    }

    /// One command that must reach the server; a server's error is a reply.
    #[track_caller]
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        let name = args.first().map(|a| show(a.as_ref())).unwrap_or_default();
        self.try_call(args).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// One command as a line of text; panics on an error of the server.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> Reply {
        match self.call(&words(line)) {
            Reply::Error(e) => panic!("{line}: {e}"),
            reply => reply,
        }
    }

    /// Many commands, at most 1,000 under way; replies in order, errors among them.
    #[track_caller]
    pub fn pipeline(&mut self, commands: &[Argv]) -> Vec<Reply> {
        let mut replies = Vec::with_capacity(commands.len());
        for chunk in commands.chunks(1000) {
            for c in chunk {
                self.queue(c);
            }
            self.flush().expect("send a pipeline");
            replies.extend(chunk.iter().map(|c| self.read().unwrap_or_else(|e| panic!("{}: {e}", show(&c[0])))));
        }
        replies
    }

    /// Raw access for protocols that aren't request and reply (PSYNC).
    pub fn into_parts(self) -> (BufReader<TcpStream>, TcpStream) {
        (self.reader, self.writer)
    }

    /// Reads raw bytes.
    pub fn read_raw(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(buf)
    }
}
