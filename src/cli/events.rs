//! `duplex events [NAME]`: what happened.

use super::{
    output::{self, Outcome},
    places::Places,
    session,
};
use crate::model::{ConflictRecord, Event, ExitCode, Severity};
use std::fmt::Write;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// One job only
    name: Option<String>,
    /// One event a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Go on with those to come
    #[arg(long, short)]
    follow: bool,
    /// How many of the past, the newest ones
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// Only those after this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
}

pub async fn run(places: &Places, options: Options) -> Outcome {
    let name = options.name.as_deref();
    if let Some(name) = name {
        session::check_name(name)?;
    }
    let client = session::connect(places).await?;
    let mut events = client.events(name, options.after, options.limit, options.follow).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        match options.json {
            true => output::json_line(&event)?,
            false => output::line(&words(&event))?,
        }
    }
    Ok(ExitCode::Fine)
}

/// What met, a line each: ` / source  SET, 34 bytes, 14:02:10.482`.
fn conflict(c: &ConflictRecord) -> String {
    let mut out = String::new();
    for (side, change) in [("source", &c.source_change), ("target", &c.target_change)] {
        let Some(change) = change else { continue };
        let _ = write!(out, "\n    {side}  {}", change.text.as_deref().unwrap_or(&change.command));
        if let Some(size) = change.size {
            let _ = write!(out, ", {size} bytes");
        }
        if let Some(at) = change.at_ms {
            let _ = write!(out, ", {}", local(at, "%H:%M:%S%.3f"));
        }
    }
    if let Some(value) = &c.value {
        let _ = write!(out, "\n    value   ");
        if let Some(text) = &value.text {
            let _ = write!(out, "{}, ", text);
        }
        let _ = write!(out, "{} bytes, CRC-64 {}", value.size, value.hash);
    }
    out
}

fn local(ms: u64, format: &str) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "-".into(), |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime(format).to_string())
}

/// `2026-11-22 14:02:11  orders  forward  ! text`, in local time.
pub fn words(event: &Event) -> String {
    let at = local(event.at_ms, "%Y-%m-%d %H:%M:%S");
    let sign = match event.severity {
        Severity::Info => ' ',
        Severity::Warning => '!',
        Severity::Error => 'x',
    };
    let direction = event.direction.map_or("", |d| d.as_str());
    let met = event.conflict.as_deref().map(conflict).unwrap_or_default();
    format!("{at}  {}  {direction:<7} {sign} {}{met}", event.job, event.text)
}
