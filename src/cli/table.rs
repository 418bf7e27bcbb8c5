//! Tables and numbers for people: 80 columns, cut by display width, unknown shown as `-`.

use crate::model::{CheckState, JobStatus, LinkState, LinkStatus};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a terminal that nobody made wider.
pub const WIDTH: usize = 80;

/// Whether this session can show more than ASCII.
pub fn unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A state's sign.
pub fn glyph(state: LinkState, unicode: bool) -> &'static str {
    let (fine, plain) = match state {
        LinkState::Synchronizing => ("●", "*"),
        LinkState::Initializing | LinkState::CatchingUp | LinkState::Prechecking => ("◐", "~"),
        LinkState::Lagging | LinkState::Reconnecting => ("▲", "!"),
        LinkState::Failed | LinkState::PrecheckFailed => ("✖", "x"),
        LinkState::Paused => ("‖", "="),
        LinkState::NotConfigured | LinkState::Ended => ("○", "-"),
    };
    if unicode { fine } else { plain }
}

/// A check's sign.
pub fn check_glyph(state: CheckState, unicode: bool) -> &'static str {
    let (fine, plain) = match state {
        CheckState::Passed => ("✔", "ok"),
        CheckState::Warning => ("▲", "!!"),
        CheckState::Failed => ("✖", "xx"),
        CheckState::Skipped => ("○", "--"),
        CheckState::Pending | CheckState::Running => ("…", ".."),
    };
    if unicode { fine } else { plain }
}

/// Cuts and pads a text to a display width.
pub fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return format!("{text}{}", " ".repeat(width - text.width()));
    }
    let (mut cut, mut used) = (String::new(), 0);
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w > width.saturating_sub(1) {
            break;
        }
        cut.push(c);
        used += w;
    }
    cut.push('…');
    format!("{cut}{}", " ".repeat(width.saturating_sub(used + 1)))
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Words in lines of [`WIDTH`]: the first after `first`, the others after `indent` blanks.
pub fn wrap(text: &str, indent: usize, first: &str) -> String {
    let (mut lines, mut line, mut bare) = (String::new(), first.to_owned(), true);
    for word in text.split_whitespace() {
        if !bare && line.width() + 1 + word.width() > WIDTH {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = " ".repeat(indent);
        }
        if !line.is_empty() && !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(word);
        bare = false;
    }
    lines + line.trim_end() + "\n"
}

/// `3 ms`, `2.1 s`, `2m10`, `3h04`, `2d04h`.
pub fn duration_ms(ms: u64) -> String {
    match (ms, ms / 1000) {
        (0..1_000, _) => format!("{ms} ms"),
        (_, 0..60) => format!("{:.1} s", ms as f64 / 1000.0),
        (_, s @ 60..3_600) => format!("{}m{:02}", s / 60, s % 60),
        (_, s @ 3_600..86_400) => format!("{}h{:02}", s / 3_600, s % 3_600 / 60),
        (_, s) => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// `812/s`, `2.1k/s`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r < 1_000.0 => format!("{r:.0}/s"),
        r if r < 1_000_000.0 => format!("{:.1}k/s", r / 1_000.0),
        r => format!("{:.1}M/s", r / 1_000_000.0),
    }
}

fn known<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// The share of the snapshot that is done, in percent.
pub fn percent(link: &LinkStatus) -> Option<u64> {
    let snapshot = link.snapshot.as_ref()?;
    let share = |done: u64, total: Option<u64>| total.filter(|t| *t > 0).map(|t| (done.min(t) * 100) / t);
    share(snapshot.keys_done, snapshot.keys_total).or_else(|| share(snapshot.bytes_done, snapshot.bytes_total))
}

/// The jobs with their links, and under each what needs a person.
pub fn jobs(jobs: &[JobStatus], unicode: bool) -> String {
    if jobs.is_empty() {
        return "no jobs yet: `duplex start JOB.toml` starts one\n".into();
    }
    let row = |name: &str, link: &str, state: &str, lag: &str, rate: &str, applied: &str, conflicts: &str| {
        let row = format!(
            "{} {:<8}{} {:>8} {:>9} {:>11} {:>9}",
            fit(name, 18),
            link,
            fit(state, 17),
            lag,
            rate,
            applied,
            conflicts
        );
        format!("{}\n", row.trim_end())
    };
    let mut text = row("NAME", "LINK", "STATE", "LAG", "RATE", "APPLIED", "CONFLICTS");
    for job in jobs {
        for (i, link) in job.links.iter().enumerate() {
            let done = match link.state {
                LinkState::Initializing => percent(link).map(|p| format!(" {p}%")).unwrap_or_default(),
                _ => String::new(),
            };
            let state = format!("{} {}{done}", glyph(link.state, unicode), link.state.as_str());
            text.push_str(&row(
                if i == 0 { &job.name } else { "" },
                link.direction.as_str(),
                &state,
                &known(link.lag_ms, duration_ms),
                &known(link.changes_per_second, rate),
                &link.changes_applied.to_string(),
                &link.conflicts_settled.to_string(),
            ));
        }
        let mut told: Vec<&str> = Vec::new();
        let reasons = job.reason.iter().chain(job.links.iter().filter_map(|l| l.reason.as_ref()));
        for reason in reasons {
            // an alert says it with what to do
            let words = reason.split_once(" link: ").map_or(reason.as_str(), |(_, words)| words);
            if !told.contains(&reason.as_str()) && !job.alerts.iter().any(|alert| alert.text.contains(words)) {
                told.push(reason);
                text.push_str(&wrap(reason, 4, "  "));
            }
        }
        for alert in &job.alerts {
            let sign = if unicode { "  ▲" } else { "  !" };
            text.push_str(&wrap(&alert.text, 4, sign));
            text.push_str(&wrap(&alert.remedy, 8, "    do:"));
        }
    }
    text
}

/// A job in one line, for logs.
pub fn job_line(job: &JobStatus) -> String {
    let link = |link: &LinkStatus| {
        let done = match link.state {
            LinkState::Initializing => percent(link).map(|p| format!(" {p}%")).unwrap_or_default(),
            _ => String::new(),
        };
        format!(
            "{} {}{done} lag {} {} applied {} echoes {} conflicts {} errors {}",
            link.direction,
            link.state.as_str(),
            known(link.lag_ms, duration_ms),
            known(link.changes_per_second, rate),
            link.changes_applied,
            link.echoes_dropped,
            link.conflicts_settled,
            link.apply_errors,
        )
    };
    let links: Vec<String> = job.links.iter().map(link).collect();
    let why = job.reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default();
    format!("{} {}{why} | {}", job.name, job.state.as_str(), links.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_by_display_width() {
        assert_eq!(fit("orders", 8), "orders  ");
        assert_eq!(fit("订单同步作业", 8), "订单同… ");
        assert_eq!(fit("订单", 4), "订单");
        assert_eq!(fit("abcdef", 4), "abc…");
    }

    #[test]
    fn durations_and_rates() {
        let shown: Vec<String> = [3, 2_100, 130_000, 11_040_000, 187_200_000].map(duration_ms).into();
        assert_eq!(shown, ["3 ms", "2.1 s", "2m10", "3h04", "2d04h"]);
        assert_eq!([rate(0.0), rate(812.4), rate(2_100.0), rate(3e6)], ["0/s", "812/s", "2.1k/s", "3.0M/s"]);
    }

    #[test]
    fn long_words_are_wrapped_under_their_sign() {
        let text = wrap(&"word ".repeat(30), 4, "  !");
        assert!(text.lines().all(|l| l.width() <= WIDTH), "{text}");
        assert!(text.starts_with("  ! word") && text.lines().nth(1).unwrap().starts_with("    word"));
    }
}
