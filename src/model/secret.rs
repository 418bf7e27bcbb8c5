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

/// An account that was typed. Debug and Display hide it; Serialize writes it, since the job file, the control socket
/// and, unless the user chose that it is kept nowhere, the engine's record of the job carry it.
///
/// In JSON it is a text; one that is kept nowhere is `{"unkept": text}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "InlineForm", into = "InlineForm")]
pub struct Inline {
    text: String,
    unkept: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum InlineForm {
    Kept(String),
    Unkept { unkept: String },
}

impl From<InlineForm> for Inline {
    fn from(form: InlineForm) -> Self {
        match form {
            InlineForm::Kept(text) => Inline { text, unkept: false },
            InlineForm::Unkept { unkept } => Inline { text: unkept, unkept: true },
        }
    }
}

impl From<Inline> for InlineForm {
    fn from(mut inline: Inline) -> Self {
        let text = std::mem::take(&mut inline.text);
        if inline.unkept { InlineForm::Unkept { unkept: text } } else { InlineForm::Kept(text) }
    }
}

impl Inline {
    pub fn new(text: impl Into<String>) -> Self {
        Inline { text: text.into(), unkept: false }
    }

    /// One that no file may hold: a process that is started anew has to ask for it.
    pub fn unkept(text: impl Into<String>) -> Self {
        Inline { text: text.into(), unkept: true }
    }

    pub fn expose(&self) -> &str {
        &self.text
    }

    pub fn is_unkept(&self) -> bool {
        self.unkept
    }

    /// The same choice of place, without the account.
    pub fn withheld(&self) -> Self {
        Inline { text: String::new(), unkept: self.unkept }
    }

    /// Whether there was an account that is not here.
    pub fn is_withheld(&self) -> bool {
        self.text.is_empty()
    }
}

impl fmt::Debug for Inline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.text);
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

    #[test]
    fn an_account_that_is_kept_nowhere_says_so_in_json() {
        for (inline, json) in [(Inline::new("a:b"), "\"a:b\""), (Inline::unkept("a:b"), "{\"unkept\":\"a:b\"}")] {
            assert_eq!(serde_json::to_string(&inline).unwrap(), json);
            assert_eq!(serde_json::from_str::<Inline>(json).unwrap(), inline);
            assert!(inline.withheld().is_withheld() && inline.withheld().is_unkept() == inline.is_unkept());
        }
    }
}
