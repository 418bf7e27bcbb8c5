//! Credentials as DTS writes them, `user:password`, in a type that never shows the password.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A user and a password. The password may hold colons; a text without a colon is the default user's password.
#[derive(Clone, Default)]
pub struct Account {
    /// `None` is the server's default user (`AUTH password`).
    pub user: Option<String>,
    /// `None` where the server asks for none.
    pub password: Option<SecretString>,
}

impl Account {
    /// Reads `user:password`, or a password alone. An empty text is no account at all.
    pub fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Account::default();
        }
        match text.split_once(':') {
            Some((user, password)) => Account {
                user: (!user.is_empty()).then(|| user.to_owned()),
                password: Some(password.to_owned().into()),
            },
            None => Account { user: None, password: Some(text.to_owned().into()) },
        }
    }

    pub fn is_empty(&self) -> bool {
        self.password.is_none()
    }

    /// The password in clear, for the one place that sends it to a server.
    pub fn expose(&self) -> Option<&str> {
        self.password.as_ref().map(|p| p.expose_secret())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.user.as_deref().unwrap_or("default"))
    }
}

/// Where an account comes from. Exactly one of the job file's `account`, `account_env`, `account_file`,
/// `account_command`, or nothing. Read again at each reconnect, so that a password can be rotated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountSource {
    /// No credentials.
    #[default]
    None,
    /// In the job file itself.
    Inline(Inline),
    /// The name of an environment variable of the engine's process.
    Env(String),
    /// A file whose first line is the account.
    File(String),
    /// A command, run by `sh -c`, whose first line of output is the account.
    Command(String),
}

/// An account kept in clear by the user's own choice. Debug and Display hide it; Serialize writes it, since the job
/// file and the control socket carry it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inline(String);

impl Inline {
    pub fn new(text: impl Into<String>) -> Self {
        Inline(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_may_hold_colons_and_user_may_be_missing() {
        let a = Account::parse("admin:a:b:c");
        assert_eq!((a.user.as_deref(), a.expose()), (Some("admin"), Some("a:b:c")));
        let a = Account::parse("secret");
        assert_eq!((a.user.as_deref(), a.expose()), (None, Some("secret")));
        let a = Account::parse(":secret");
        assert_eq!((a.user.as_deref(), a.expose()), (None, Some("secret")));
        assert!(Account::parse("").is_empty());
    }

    #[test]
    fn debug_shows_no_password() {
        assert_eq!(format!("{:?}", Account::parse("admin:hunter2")), "Account(admin)");
        assert_eq!(format!("{:?}", AccountSource::Inline(Inline::new("admin:hunter2"))), "Inline(***)");
    }
}
