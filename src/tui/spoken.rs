//! What the engine says, in the language of the screen. The engine speaks English; for another language its alerts, events
//! and precheck items have sentences of their own, by rule, kind and item. A sentence is never half translated: either
//! all of it is the screen's, or all of it the engine's, which is then marked as the original.

mod said;

use super::{dashboard::events::kind_word, i18n::Lang, text};
use crate::model::{Check, CheckState, Event, EventKind, JobStatus, LinkState, status::Alert};

/// What is the matter and what to do, of an alert.
pub fn alert(alert: &Alert, job: &JobStatus, lang: Lang) -> (String, String) {
    let link = alert.direction.and_then(|d| job.links.iter().find(|l| l.direction == d));
    let window = link.and_then(|l| l.resume_window_seconds).map(text::seconds);
    let lag = link.and_then(|l| l.lag_ms).map(text::millis);
    let spool = link.map(|l| text::bytes(l.spool_bytes));
    let values = [
        ("window", window.unwrap_or_else(|| "?".into())),
        ("lag", lag.unwrap_or_else(|| "?".into())),
        ("spool", spool.unwrap_or_else(|| "?".into())),
        ("conflicts", text::count(job.conflicts_open)),
    ];
    // what to do with its figures, where it has words of its own; else that of the rule
    let remedy = || match is_known(&alert.remedy, lang) {
        true => sentence(&alert.remedy, lang),
        false => lang.engine(&format!("alert_do.{}", alert.rule)).unwrap_or_default().to_owned(),
    };
    match lang.engine(&format!("alert.{}", alert.rule)) {
        // why a link is down is in what the engine says alone
        Some(_) if alert.rule.starts_with("link_") && is_known(&alert.text, lang) => {
            (sentence(&alert.text, lang), remedy())
        }
        Some(words) => {
            let mut words = words.to_owned();
            for (name, value) in &values {
                words = words.replace(&format!("{{{name}}}"), value);
            }
            (words, remedy())
        }
        None => (text::clean(&alert.text), text::clean(&alert.remedy)),
    }
}

/// A sentence of the engine, such as a reason or a fault, in the words of the screen; its own where it is not known.
pub fn sentence(said: &str, lang: Lang) -> String {
    text::clean(&said::translate(said, lang, 0).unwrap_or_else(|| said.to_owned()))
}

/// Whether a sentence of the engine has words of its own in this language.
pub fn is_known(said: &str, lang: Lang) -> bool {
    said::translate(said, lang, 0).is_some()
}

/// An event in the words of the screen; `None` where the engine's own are. A sentence that is not known is said by what
/// kind it is.
pub fn event(event: &Event, lang: Lang) -> Option<String> {
    if event.kind != EventKind::StateChanged
        && let Some(words) = said::translate(&event.text, lang, 0)
    {
        return Some(text::clean(&words));
    }
    let mut words = lang.engine(&format!("event.{}", kind_word(event)))?.to_owned();
    if event.kind == EventKind::StateChanged {
        let word = event.text.split(':').next().unwrap_or_default().trim();
        let state = LinkState::ALL.into_iter().find(|s| s.as_str() == word)?;
        words = words.replace("{state}", lang.t(&super::jobs::state_label(state)));
        if let Some(why) = event.text.split_once(": ").and_then(|(_, why)| said::translate(why, lang, 0)) {
            words = format!("{words}：{}", text::clean(&why));
        }
    }
    let key = event.conflict.as_ref().map(|c| text::clean(&c.key));
    Some(match key {
        Some(key) => words.replace("{key}", &key),
        None => words.replace(" {key}", ""),
    })
}

/// What was seen by an item, and what to do where it failed or warns; `None` where the engine's own words are the
/// screen's.
pub fn check(check: &Check, lang: Lang) -> Option<(String, Option<&'static str>)> {
    let of = |part: &str| lang.engine(&format!("{part}.{}", check.id.as_str()));
    match check.state {
        CheckState::Passed => Some((of("passed")?.to_owned(), None)),
        // what was seen says more than what such an item is about
        CheckState::Warning | CheckState::Failed => {
            let matter = of("matter")?;
            Some((said::translate(&check.seen, lang, 0).unwrap_or_else(|| matter.to_owned()), of("advice")))
        }
        CheckState::Skipped => Some((lang.engine("skipped.why")?.to_owned(), None)),
        CheckState::Pending | CheckState::Running => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CheckId, Direction, Severity};

    #[test]
    fn every_item_kind_and_rule_has_its_chinese_sentence() {
        for id in CheckId::ALL {
            for part in ["passed", "matter", "advice"] {
                assert!(Lang::ZhCn.engine(&format!("{part}.{}", id.as_str())).is_some(), "{part}.{}", id.as_str());
            }
        }
        let kinds = "job_started job_paused job_resumed job_stopped state_changed snapshot_started snapshot_finished \
                     connected disconnected resumed full_resync failover conflict_detected conflict_settled apply_error \
                     target_refuses flush_seen spool_full alert_raised alert_cleared verify_finished failed";
        for kind in kinds.split_whitespace() {
            let event = event_of(serde_json::from_value(kind.into()).expect("a kind"), "synchronizing: why");
            let words = super::event(&event, Lang::ZhCn).expect(kind);
            assert!(!words.contains(['{', '}']), "{words}");
            assert_eq!(super::event(&event, Lang::En), None);
        }
        // the rules that the engine knows, from its own source
        let source = concat!(
            include_str!("../engine/supervisor/alerts.rs"),
            include_str!("../engine/job/status.rs"),
            include_str!("../engine/supervisor/managed.rs")
        );
        for rule in [
            "link_failed",
            "link_reconnecting",
            "resume_window_short",
            "spool_full",
            "spool_near_full",
            "lag_high",
            "conflicts_open",
            "keys_given_up",
            "account_missing",
            "keys_evicted",
        ] {
            assert!(source.contains(&format!("\"{rule}\"")), "{rule} is no rule any more");
            assert!(Lang::ZhCn.engine(&format!("alert.{rule}")).is_some(), "{rule}");
            assert!(Lang::ZhCn.engine(&format!("alert_do.{rule}")).is_some(), "{rule}");
        }
    }

    fn event_of(kind: EventKind, text: &str) -> Event {
        Event {
            seq: 1,
            at_ms: 0,
            job: "a".into(),
            direction: Some(Direction::Forward),
            severity: Severity::Info,
            kind,
            text: text.into(),
            conflict: None,
        }
    }
}
