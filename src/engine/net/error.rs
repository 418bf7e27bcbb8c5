//! What can go wrong between us and a server: what was tried, what was seen, what to do.

use std::time::Duration;

/// Why a server could not be reached, or would not have us. Clone and text only, so that it can be shown and kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    #[error("{address:?} is no address: {seen}; write host:port, or [::1]:port for IPv6")]
    BadAddress { address: String, seen: String },
    #[error("the name in {address} was not resolved: {seen}; check the spelling, and this host's DNS and /etc/hosts")]
    Dns { address: String, seen: String },
    #[error("{address} refused the connection; check that the server runs, its port, and that it binds this interface")]
    Refused { address: String },
    #[error(
        "{address} did not answer within {} s while we tried to {doing}; a firewall or security group may drop the \
         packets: allow this host, or check the route", .waited.as_secs_f32()
    )]
    TimedOut { address: String, doing: &'static str, waited: Duration },
    #[error(
        "the connection to {address} failed while we tried to {doing}: {seen}; check the network between the hosts"
    )]
    Io { address: String, doing: &'static str, seen: String },
    #[error(
        "{address} closed the connection while we tried to {doing}; see the server's log: a TLS port closes on plain \
         text, and a full server on everybody"
    )]
    Closed { address: String, doing: &'static str },

    #[error(
        "the certificate of {address} is for {presented}, not for {expected:?}; set tls_server_name to a name in it"
    )]
    TlsName { address: String, expected: String, presented: String },
    #[error("the certificate of {address} has expired or is not valid yet: {seen}; renew it, or set this host's clock")]
    TlsExpired { address: String, seen: String },
    #[error(
        "the certificate of {address} is signed by an authority that we don't know; set ca_file to the certificate of the one that signed it"
    )]
    TlsUnknownAuthority { address: String },
    #[error(
        "{address} asks for a client certificate, or does not take ours ({seen}); set cert_file and key_file, signed by a CA that it trusts"
    )]
    TlsClientCertificate { address: String, seen: String },
    #[error("{address} does not speak TLS on this port; use its TLS port, or turn TLS off")]
    TlsNotSpoken { address: String, seen: String },
    #[error(
        "{address} accepts, but did not agree on TLS within {} s; if this port speaks plain text, leave tls out or use \
         its TLS port", .waited.as_secs_f32()
    )]
    TlsSilent { address: String, waited: Duration },
    #[error("TLS with {address} failed: {seen}; compare protocol versions and certificates on both sides")]
    Tls { address: String, seen: String },
    #[error(
        "the TLS file {path} can't be used: {seen}; it must be readable by this user, in PEM form, and a key must be that of its certificate"
    )]
    TlsFile { path: String, seen: String },

    #[error("the account could not be read from {from}: {seen}; {remedy}")]
    Account { from: String, seen: String, remedy: &'static str },
    #[error("{address} rejected the user or the password ({seen}); check the account, and that the user is on")]
    WrongPassword { address: String, seen: String },
    #[error("{address} asks for a password and we have none; set an account")]
    PasswordNeeded { address: String },
    #[error(
        "{address} has no password set, but we were given one ({seen}); remove the account, or set a password there"
    )]
    NoPasswordSet { address: String, seen: String },
    #[error("the account may not {doing} at {address} ({seen}); grant it with ACL SETUSER")]
    NoPermission { address: String, doing: String, seen: String },

    #[error("{address} does not speak the Redis protocol: it sent {seen:?}; {hint}")]
    NotRedis { address: String, seen: String, hint: &'static str },
    #[error("{address} has too many clients ({seen}); raise maxclients there, or close idle connections")]
    TooManyClients { address: String, seen: String },
    #[error(
        "{address} is in protected mode and takes local connections only; set a password there, or bind it to an \
         interface and set protected-mode no"
    )]
    ProtectedMode { address: String },
    #[error("{address} answered {doing} with an error: {seen}; {}", .kind.remedy())]
    Server { address: String, doing: String, kind: ServerError, seen: String },

    #[error("no address is given; name at least one as host:port")]
    NoAddress,
    #[error(
        "no sentinel knows the master {name:?}: {seen}; set master_name to a name that SENTINEL MASTERS shows there"
    )]
    NoMaster { name: String, seen: String },
    #[error("none of {count} addresses could be used; the last said: {last}")]
    NoneAnswered { count: usize, last: Box<NetError> },
}

impl NetError {
    /// Whether waiting alone won't help: a person has to change an account, a right, a certificate or an address.
    pub fn needs_a_person(&self) -> bool {
        use NetError::*;
        match self {
            BadAddress { .. } | TlsName { .. } | TlsExpired { .. } | TlsUnknownAuthority { .. } => true,
            TlsClientCertificate { .. } | TlsNotSpoken { .. } | TlsFile { .. } | Account { .. } => true,
            WrongPassword { .. } | PasswordNeeded { .. } | NoPasswordSet { .. } | NoPermission { .. } => true,
            NotRedis { .. } | ProtectedMode { .. } | NoAddress => true,
            Server { kind, .. } => kind.needs_a_person(),
            NoneAnswered { last, .. } => last.needs_a_person(),
            _ => false,
        }
    }

    /// A cluster has sent the question elsewhere: the slot has another owner, or is on its way to it.
    pub fn is_redirection(&self) -> bool {
        use ServerError::{Ask, Moved, TryAgain};
        matches!(self, NetError::Server { kind: Moved | Ask | TryAgain, .. })
    }

    /// The sentence split where the advice begins: (what was tried and seen, what to do).
    pub fn parts(&self) -> (String, String) {
        let text = self.to_string();
        match text.rsplit_once("; ") {
            Some((seen, remedy)) => (seen.to_owned(), remedy.to_owned()),
            None => (text, String::new()),
        }
    }

    /// Turns an error reply into the variant that knows its remedy. `doing` is what was asked, such as `PSYNC`.
    pub fn from_reply(address: &str, doing: &str, reply: &str) -> NetError {
        let address = address.to_owned();
        let seen: String = reply.chars().take(300).collect();
        if reply.starts_with("WRONGPASS") || reply.contains("invalid password") {
            return NetError::WrongPassword { address, seen };
        }
        if reply.starts_with("ERR AUTH <password> called without") || reply.contains("no password is set") {
            return NetError::NoPasswordSet { address, seen };
        }
        if reply.starts_with("DENIED") {
            return NetError::ProtectedMode { address };
        }
        if reply.contains("max number of clients") {
            return NetError::TooManyClients { address, seen };
        }
        match ServerError::classify(reply) {
            ServerError::NoAuth => NetError::PasswordNeeded { address },
            ServerError::NoPerm => NetError::NoPermission { address, doing: doing.to_owned(), seen },
            kind => NetError::Server { address, doing: doing.to_owned(), kind, seen },
        }
    }

    /// An I/O error of an open connection, with TLS errors told apart.
    pub(crate) fn from_io(address: &str, doing: &'static str, error: &std::io::Error) -> NetError {
        if let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return super::tls::explain(address, tls);
        }
        let address = address.to_owned();
        match error.kind() {
            std::io::ErrorKind::ConnectionRefused => NetError::Refused { address },
            std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::BrokenPipe => NetError::Closed { address, doing },
            _ => NetError::Io { address, doing, seen: error.to_string() },
        }
    }

    /// An error of the redis crate on a control connection.
    pub fn from_redis(address: &str, doing: &str, error: &redis::RedisError) -> NetError {
        if error.is_timeout() {
            return NetError::Io {
                address: address.to_owned(),
                doing: "read an answer",
                seen: "it took too long".into(),
            };
        }
        if let Some(code) = error.code() {
            return NetError::from_reply(address, doing, &format!("{code} {}", error.detail().unwrap_or("")));
        }
        if error.is_connection_dropped() {
            return NetError::Closed { address: address.to_owned(), doing: "read an answer" };
        }
        NetError::Io { address: address.to_owned(), doing: "read an answer", seen: error.to_string() }
    }
}

/// An error reply's class: what it means for a transaction that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerError {
    Loading,
    Readonly,
    Oom,
    Misconf,
    Busy,
    NoPerm,
    ClusterDown,
    Moved,
    Ask,
    TryAgain,
    NoAuth,
    MasterDown,
    ExecAbort,
    CrossSlot,
    WrongType,
    NoMasterLink,
    NoReplicas,
    UnknownCommand,
    Other,
}

impl ServerError {
    /// Reads the text of an error reply, with or without the leading `-`.
    pub fn classify(reply: &str) -> ServerError {
        let reply = reply.strip_prefix('-').unwrap_or(reply);
        match reply.split([' ', '\r', '\n']).next().unwrap_or("") {
            "LOADING" => ServerError::Loading,
            "READONLY" => ServerError::Readonly,
            "OOM" => ServerError::Oom,
            "MISCONF" => ServerError::Misconf,
            "BUSY" => ServerError::Busy,
            "NOPERM" => ServerError::NoPerm,
            "CLUSTERDOWN" => ServerError::ClusterDown,
            "MOVED" => ServerError::Moved,
            "ASK" => ServerError::Ask,
            "TRYAGAIN" => ServerError::TryAgain,
            "NOAUTH" => ServerError::NoAuth,
            "MASTERDOWN" => ServerError::MasterDown,
            "EXECABORT" => ServerError::ExecAbort,
            "CROSSSLOT" => ServerError::CrossSlot,
            "WRONGTYPE" => ServerError::WrongType,
            "NOMASTERLINK" => ServerError::NoMasterLink,
            "NOREPLICAS" => ServerError::NoReplicas,
            "ERR" if reply.starts_with("ERR unknown command") => ServerError::UnknownCommand,
            _ => ServerError::Other,
        }
    }

    /// Whether the same request may succeed later with nothing changed by a person.
    pub fn passes_by_itself(self) -> bool {
        use ServerError::*;
        matches!(self, Loading | Busy | ClusterDown | TryAgain | MasterDown | NoMasterLink | NoReplicas | Moved | Ask)
    }

    pub fn needs_a_person(self) -> bool {
        use ServerError::*;
        matches!(self, NoPerm | NoAuth | UnknownCommand | Oom | Misconf)
    }

    /// What to do, in plain words.
    pub fn remedy(self) -> &'static str {
        match self {
            ServerError::Loading => "wait until it has loaded its data",
            ServerError::Readonly => "it is a replica: name its master",
            ServerError::Oom => "raise maxmemory there, or free some",
            ServerError::Misconf => "its last save failed: mend its disk, see its log",
            ServerError::Busy => "a script runs there: wait, or SCRIPT KILL",
            ServerError::NoPerm => "grant the right with ACL SETUSER",
            ServerError::ClusterDown => "mend the cluster: some slots are not served",
            ServerError::Moved | ServerError::Ask => "the slot has another owner: learn the slots anew",
            ServerError::TryAgain => "the slot is moving: try again",
            ServerError::NoAuth => "set an account",
            ServerError::MasterDown | ServerError::NoMasterLink => "wait until it is connected to its master again",
            ServerError::ExecAbort => "see the error that came before it",
            ServerError::CrossSlot => "the keys lie in several slots",
            ServerError::WrongType => "the key holds another type",
            ServerError::NoReplicas => "it wants more replicas: see min-replicas-to-write",
            ServerError::UnknownCommand => "the command is renamed, forbidden, or not known to this server",
            ServerError::Other => "see the server's log",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_classified_by_their_first_word() {
        assert_eq!(ServerError::classify("-LOADING Redis is loading the dataset in memory"), ServerError::Loading);
        assert_eq!(ServerError::classify("MOVED 866 127.0.0.1:7001"), ServerError::Moved);
        assert_eq!(ServerError::classify("ERR unknown command 'PSYNC'"), ServerError::UnknownCommand);
        assert_eq!(ServerError::classify("ERR something"), ServerError::Other);
    }

    #[test]
    fn a_reply_finds_the_variant_that_knows_its_remedy() {
        let e = NetError::from_reply("h:1", "AUTH", "WRONGPASS invalid username-password pair or user is disabled.");
        assert!(matches!(e, NetError::WrongPassword { .. }) && e.needs_a_person());
        let e = NetError::from_reply("h:1", "AUTH", "ERR invalid password");
        assert!(matches!(e, NetError::WrongPassword { .. }), "5.0 says it so: {e}");
        let e = NetError::from_reply("h:1", "INFO", "LOADING Redis is loading the dataset in memory");
        assert!(!e.needs_a_person());
        assert_eq!(e.parts().1, "wait until it has loaded its data");
    }
}
