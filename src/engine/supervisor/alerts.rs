//! Rules over the live state: what an operator should see to, and what to do about it.
//!
//! Pure. A rule that holds goes on holding until its value is a fifth better than its threshold, so that a value on
//! the threshold does not fill the event log.

use crate::model::{Direction, Job, JobStatus, LinkState, LinkStatus, Severity, Side, status::Alert};

/// Below it a short outage already costs a new copy, in seconds.
const WINDOW_SHORT: u64 = 600;
/// Below it hardly a restart is survived, in seconds.
const WINDOW_CRITICAL: u64 = 60;
/// Share of the spool's bound from which it is near it, in percent.
const SPOOL_NEAR: u64 = 80;
/// Open conflicts of a job from which the sites write the same keys faster than they can be settled.
const MANY_CONFLICTS: u64 = 1_000;

/// The rules that hold, most urgent first. `held` are those that held a moment ago; what the links found out by
/// themselves (`status.alerts`) stays among them.
pub fn evaluate(job: &Job, status: &JobStatus, held: &[Alert]) -> Vec<Alert> {
    let mut alerts = status.alerts.clone();
    for link in &status.links {
        let holds = |rule: &str| held.iter().any(|a| a.rule == rule && a.direction == Some(link.direction));
        let mut add = |rule: &str, severity, text: String, remedy: String| {
            alerts.push(Alert { rule: rule.into(), direction: Some(link.direction), severity, text, remedy });
        };
        state(status, link, &mut add);
        window(job, link, holds("resume_window_short"), &mut add);
        spool(job, link, &holds, &mut add);
        lag(job, link, holds("lag_high"), &mut add);
    }
    let many = held.iter().any(|a| a.rule == "conflicts_open");
    if status.conflicts_open >= if many { MANY_CONFLICTS * 4 / 5 } else { MANY_CONFLICTS } {
        let n = status.conflicts_open;
        // With one link there are no conflicts: these keys are read once more from the source.
        let open = if job.policy.two_way {
            (
                format!("{n} keys are in conflict at this moment"),
                "let each key be written at one site where you can; see the hottest keys among the conflicts",
            )
        } else {
            (
                format!("{n} keys are to be carried as whole values"),
                "the link has lagged, or the target refused words of the stream; until they are there they are as they were",
            )
        };
        alerts.push(Alert {
            rule: "conflicts_open".into(),
            direction: None,
            severity: Severity::Warning,
            text: open.0,
            remedy: open.1.into(),
        });
    }
    alerts.sort_by_key(|a| std::cmp::Reverse(a.severity));
    alerts
}

type Add<'a> = &'a mut dyn FnMut(&str, Severity, String, String);

fn state(status: &JobStatus, link: &LinkStatus, add: Add<'_>) {
    let direction = link.direction;
    let (whose, why) = link.reason.as_deref().map(whose).unwrap_or_default();
    // One link that fails ends the other, and its reason stands with both: it is told once.
    let told = |other: &LinkStatus| {
        other.direction != direction
            && (other.state, &other.reason) == (link.state, &link.reason)
            && whose.map_or(!why.is_empty() && direction != Direction::Forward, |whose| whose == other.direction)
    };
    if status.links.iter().any(told) {
        return;
    }
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    match link.state {
        LinkState::Failed => add(
            "link_failed",
            Severity::Error,
            format!("the {direction} link has failed{why}"),
            "mend the cause, then resume the job".into(),
        ),
        LinkState::Reconnecting => add(
            "link_reconnecting",
            Severity::Warning,
            format!("the {direction} link is not connected{why}"),
            "it tries again by itself; see to the server and the network in between".into(),
        ),
        _ => {}
    }
}

/// The link that a reason names, and what it says of it.
fn whose(reason: &str) -> (Option<Direction>, &str) {
    let of = |d: Direction| Some((Some(d), reason.strip_prefix(d.as_str())?.strip_prefix(" link: ")?));
    Direction::BOTH.into_iter().find_map(of).unwrap_or((None, reason))
}

fn side_of(job: &Job, side: Side) -> String {
    format!("{side} ({})", job.instance(side).label())
}

fn window(job: &Job, link: &LinkStatus, held: bool, add: Add<'_>) {
    // Where it has failed nothing is measured: what stands is from before, and the cause is told already.
    let Some(seconds) = link.resume_window_seconds.filter(|_| link.state != LinkState::Failed) else { return };
    if seconds >= if held { WINDOW_SHORT * 5 / 4 } else { WINDOW_SHORT } {
        return;
    }
    let severity = if seconds < WINDOW_CRITICAL { Severity::Error } else { Severity::Warning };
    let long = match seconds {
        0..120 => format!("{seconds} s"),
        _ => format!("{} min", seconds / 60),
    };
    let size = match link.backlog_bytes {
        // Twice what ten minutes need, as a number that can be typed.
        Some(bytes) if bytes > 0 => {
            let wanted = bytes.saturating_mul(2 * WINDOW_SHORT) / seconds.max(1);
            format!(" to {}mb", (wanted >> 20).max(1).next_power_of_two())
        }
        _ => String::new(),
    };
    add(
        "resume_window_short",
        severity,
        format!("the {} link can be away for {long} before it needs a new copy", link.direction),
        format!("raise repl-backlog-size{size} at the {}", side_of(job, link.direction.from())),
    );
}

fn spool(job: &Job, link: &LinkStatus, holds: &dyn Fn(&str) -> bool, add: Add<'_>) {
    let bound = job.limits.spool_memory.saturating_add(job.limits.spool_disk);
    let percent = (u128::from(link.spool_bytes) * 100 / u128::from(bound.max(1))) as u64;
    let target = side_of(job, link.direction.to());
    let remedy = format!("see why the {target} takes the changes so slowly, or raise spool_disk in the job file");
    let direction = link.direction;
    // What comes next may be larger than what is left: full is what waits, and stays so until there is room again.
    if link.spool_full || holds("spool_full") && percent >= SPOOL_NEAR {
        let text = format!("the {direction} link's spool is full; it reads no further, and the server may cut it off");
        add("spool_full", Severity::Error, text, remedy);
    } else if percent >= if holds("spool_near_full") { SPOOL_NEAR * 4 / 5 } else { SPOOL_NEAR } {
        let text = format!("the {direction} link's spool is {percent} % full");
        add("spool_near_full", Severity::Warning, text, remedy);
    }
}

fn lag(job: &Job, link: &LinkStatus, held: bool, add: Add<'_>) {
    let (Some(lag), bound) = (link.lag_ms, job.limits.lag_alert_ms) else { return };
    // While the first copy runs there is nothing that could be late.
    if !matches!(link.state, LinkState::Synchronizing | LinkState::Lagging) {
        return;
    }
    if lag <= if held { bound - bound / 5 } else { bound } {
        return;
    }
    let target = side_of(job, link.direction.to());
    add(
        "lag_high",
        Severity::Warning,
        format!("the {} link is {:.1} s behind", link.direction, lag as f64 / 1000.0),
        format!("look at the load of the {target}, the network between, and the job's limits"),
    );
}

/// What began and what ended between two evaluations.
pub fn difference<'a>(before: &'a [Alert], now: &'a [Alert]) -> (Vec<&'a Alert>, Vec<&'a Alert>) {
    let key = |a: &Alert| (a.rule.clone(), a.direction);
    let missing = |from: &'a [Alert], other: &[Alert]| -> Vec<&'a Alert> {
        from.iter().filter(|a| !other.iter().any(|b| key(a) == key(b))).collect()
    };
    (missing(now, before), missing(before, now))
}

/// A direction's place in pairs.
pub fn index(direction: Direction) -> usize {
    direction as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::supervisor::idle;
    use crate::model::{JobId, job::file};

    fn job() -> Job {
        file::parse("name='o'\nsource={address='a:1', id='r-a'}\ntarget={address='b:1'}", "t").unwrap()
    }

    fn link(change: impl FnOnce(&mut LinkStatus)) -> JobStatus {
        let mut status = idle::status(&job(), &JobId("x".into()), LinkState::Synchronizing, None);
        change(&mut status.links[0]);
        status
    }

    fn rules(status: &JobStatus, held: &[Alert]) -> Vec<String> {
        evaluate(&job(), status, held).into_iter().map(|a| a.rule).collect()
    }

    #[test]
    fn a_healthy_job_raises_nothing() {
        let status = link(|l| {
            l.resume_window_seconds = Some(3600);
            l.lag_ms = Some(3);
        });
        assert_eq!(rules(&status, &[]), [""; 0]);
    }

    #[test]
    fn a_short_window_says_where_and_how_much() {
        let status = link(|l| {
            l.resume_window_seconds = Some(540);
            l.backlog_bytes = Some(64 << 20);
        });
        let alerts = evaluate(&job(), &status, &[]);
        assert_eq!(alerts[0].text, "the forward link can be away for 9 min before it needs a new copy");
        assert_eq!(alerts[0].remedy, "raise repl-backlog-size to 256mb at the source (r-a)");
        assert_eq!(alerts[0].severity, Severity::Warning);
        let status = link(|l| l.resume_window_seconds = Some(5));
        assert_eq!(evaluate(&job(), &status, &[])[0].severity, Severity::Error);
        let failed = link(|l| (l.resume_window_seconds, l.state) = (Some(5), LinkState::Failed));
        assert_eq!(rules(&failed, &[]), ["link_failed"]);
    }

    #[test]
    fn a_value_on_the_threshold_does_not_flap() {
        let high = link(|l| l.lag_ms = Some(10_001));
        let held = evaluate(&job(), &high, &[]);
        assert_eq!(rules(&high, &[]), ["lag_high"]);
        let near = link(|l| l.lag_ms = Some(9_000));
        assert_eq!(rules(&near, &held), ["lag_high"]);
        assert_eq!(rules(&near, &[]), [""; 0]);
        let low = link(|l| l.lag_ms = Some(7_000));
        assert_eq!(rules(&low, &held), [""; 0]);
    }

    #[test]
    fn what_ended_both_links_is_told_once_and_of_its_own() {
        let failed = |reason: &str| {
            link(|_| ()).links.into_iter().fold(link(|_| ()), |mut status, of| {
                let l = status.links.iter_mut().find(|l| l.direction == of.direction).unwrap();
                (l.state, l.reason) = (LinkState::Failed, Some(reason.to_owned()));
                status
            })
        };
        let told = |reason: &str| {
            let alerts = evaluate(&job(), &failed(reason), &[]);
            alerts.into_iter().map(|a| (a.direction.unwrap(), a.text)).collect::<Vec<_>>()
        };
        let once = |d, text: &str| vec![(d, text.to_owned())];
        assert_eq!(
            told("reverse link: it was cut"),
            once(Direction::Reverse, "the reverse link has failed: it was cut")
        );
        assert_eq!(
            told("forward link: it was cut"),
            once(Direction::Forward, "the forward link has failed: it was cut")
        );
        assert_eq!(told("the key is gone"), once(Direction::Forward, "the forward link has failed: the key is gone"));
    }

    #[test]
    fn a_full_spool_is_an_error_and_comes_first() {
        let status = link(|l| {
            (l.spool_bytes, l.spool_full) = (9 << 30, true);
            l.lag_ms = Some(60_000);
        });
        assert_eq!(rules(&status, &[]), ["spool_full", "lag_high"]);
        // room for a moment is not room yet
        let (near, held) = (link(|l| l.spool_bytes = 9 << 30), evaluate(&job(), &status, &[]));
        assert_eq!(rules(&near, &held), ["spool_full"]);
        assert_eq!(rules(&near, &[]), ["spool_near_full"]);
    }

    #[test]
    fn the_difference_is_what_began_and_what_ended() {
        let before = evaluate(&job(), &link(|l| l.lag_ms = Some(60_000)), &[]);
        let now = evaluate(&job(), &link(|l| l.spool_full = true), &[]);
        let (raised, cleared) = difference(&before, &now);
        assert_eq!((raised[0].rule.as_str(), cleared[0].rule.as_str()), ("spool_full", "lag_high"));
        assert_eq!(difference(&now, &now), (vec![], vec![]));
    }
}
