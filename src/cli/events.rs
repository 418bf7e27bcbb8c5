//! `duplex events [NAME]`: what happened.

use super::{
    output::{self, Outcome},
    places::Places,
    session,
};
use crate::model::{Event, ExitCode, Severity};

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

/// `2026-11-22 14:02:11  orders  forward  ! text`, in local time.
pub fn words(event: &Event) -> String {
    let at = i64::try_from(event.at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let at = at.map_or_else(
        || "-".into(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
    let sign = match event.severity {
        Severity::Info => ' ',
        Severity::Warning => '!',
        Severity::Error => 'x',
    };
    let direction = event.direction.map_or("", |d| d.as_str());
    format!("{at}  {}  {direction:<7} {sign} {}", event.job, event.text)
}
