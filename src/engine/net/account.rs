//! Where the account comes from, read anew at each dial, so that a password can be rotated.

use super::NetError;
use crate::model::{Account, AccountSource};
use std::time::Duration;
use zeroize::Zeroize;

/// How long an account command may take: it may ask a vault over the network.
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// Reads the account. Errors name the place, never the secret.
pub(super) async fn resolve(source: &AccountSource) -> Result<Account, NetError> {
    match source {
        AccountSource::None => Ok(Account::default()),
        AccountSource::Inline(text) => Ok(Account::parse(text.expose())),
        AccountSource::Env(name) => match std::env::var(name) {
            Ok(mut text) => Ok(take_first_line(&mut text)),
            Err(e) => Err(NetError::Account {
                from: format!("the environment variable {name}"),
                seen: e.to_string(),
                remedy: "set it where the engine is started",
            }),
        },
        AccountSource::File(path) => match tokio::fs::read_to_string(path).await {
            Ok(mut text) => Ok(take_first_line(&mut text)),
            Err(e) => Err(NetError::Account {
                from: format!("the file {path}"),
                seen: e.to_string(),
                remedy: "create it, readable by the engine's user alone",
            }),
        },
        AccountSource::Command(line) => command(line).await,
    }
}

async fn command(line: &str) -> Result<Account, NetError> {
    let failed = |seen: String| NetError::Account {
        from: format!("the command {line:?}"),
        seen,
        remedy: "run it by hand as the engine's user: its first line of output is the account",
    };
    let output = tokio::process::Command::new("sh")
        .arg("-c")
        .arg(line)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(COMMAND_DEADLINE, output).await {
        Err(_) => return Err(failed(format!("it ran longer than {} s", COMMAND_DEADLINE.as_secs()))),
        Ok(Err(e)) => return Err(failed(e.to_string())),
        Ok(Ok(output)) => output,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.lines().next().unwrap_or("").chars().take(200).collect();
        return Err(failed(format!("{}: {said}", output.status)));
    }
    match String::from_utf8(output.stdout) {
        Ok(mut text) if !text.trim().is_empty() => Ok(take_first_line(&mut text)),
        Ok(_) => Err(failed("it printed nothing".into())),
        Err(_) => Err(failed("its output is not UTF-8".into())),
    }
}

/// The account in the first line; the text is wiped.
fn take_first_line(text: &mut String) -> Account {
    let account = Account::parse(text.lines().next().unwrap_or(""));
    text.zeroize();
    account
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_line_of_a_file_and_of_a_command_is_the_account() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "bob:pa:ss\r\nmore\n").unwrap();
        let account = resolve(&AccountSource::File(file.path().display().to_string())).await.unwrap();
        assert_eq!((account.user.as_deref(), account.expose()), (Some("bob"), Some("pa:ss")));
        let account = resolve(&AccountSource::Command("echo alice:x; echo y".into())).await.unwrap();
        assert_eq!((account.user.as_deref(), account.expose()), (Some("alice"), Some("x")));
    }

    #[tokio::test]
    async fn a_failing_source_says_what_to_do() {
        let e = resolve(&AccountSource::Command("echo vault sealed >&2; exit 3".into())).await.unwrap_err();
        assert!(e.to_string().contains("vault sealed") && e.needs_a_person(), "{e}");
        let e = resolve(&AccountSource::Env("NO_SUCH_VARIABLE_HERE".into())).await.unwrap_err();
        assert!(e.to_string().contains("NO_SUCH_VARIABLE_HERE"), "{e}");
    }
}
