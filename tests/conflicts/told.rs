//! What an operator is told of a conflict: both changes by their names, their times, whose order stands, and the value only
//! where the job asks for it.

use crate::support::{JobSpec, versions::Slot, wait::until, *};
use serde_json::Value;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DELAY: Duration = Duration::from_millis(40);

/// Two servers far apart, of which both change `key` while neither has seen the other; gives the job, when it was done
/// (Unix time, milliseconds) and the event.
fn met(policy: &str) -> (Server, Server, [Proxy; 2], Duplex, u64, Value) {
    let (a, b) = (Server::start(Slot::Usual.server(), &[]), Server::start(Slot::Usual.server(), &[]));
    let proxies = [Proxy::to(a.port), Proxy::to(b.port)];
    let mut job = JobSpec::between(proxies[0].addr(), proxies[1].addr());
    if !policy.is_empty() {
        job = job.policy(policy);
    }
    let duplex = Duplex::synced(&job);
    proxies.iter().for_each(|p| p.delay(DELAY));
    let (mut at_a, mut at_b) = (a.client(), b.client());
    // The engine learns each site's round trip before it judges times.
    for i in 0..20 {
        at_a.run(&format!("SET warm-a:{i} v"));
        at_b.run(&format!("SET warm-b:{i} v"));
    }
    assert_equal_within(&a, &b, secs(10));
    let began = Instant::now();
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    at_a.run("RPUSH letters alpha");
    until(began + Duration::from_millis(20));
    at_b.run("LPUSH letters beta gamma");
    assert_equal_within(&a, &b, secs(10));
    duplex.wait_status("it is settled", secs(10), |s| s.total("conflicts_settled") == 1);
    let told = wait_for("the conflict's event", secs(10), || {
        let events = duplex.run(&["events", "--json"]).code(0).text();
        let mut all = events.lines().map(|l| serde_json::from_str::<Value>(l).expect("a line of JSON"));
        all.find(|e| e["kind"] == "conflict_settled").ok_or_else(|| events.clone())
    });
    (a, b, proxies, duplex, unix_ms, told)
}

#[test]
fn a_conflict_is_told_with_both_changes_and_without_their_content() {
    let (a, _b, _proxies, duplex, began, told) = met("");
    let (source, target) = (&told["conflict"]["source_change"], &told["conflict"]["target_change"]);
    assert_eq!((source["command"].as_str(), target["command"].as_str()), (Some("RPUSH"), Some("LPUSH")), "{told:#}");
    assert_eq!(
        (told["conflict"]["key"].as_str(), told["conflict"]["authority"].as_str()),
        (Some("letters"), Some("source"))
    );
    // They were 20 ms apart, and each is told by its own site's clock: here that is one clock.
    for (change, after) in [(source, 0), (target, 20)] {
        let at = change["at_ms"].as_u64().unwrap_or_else(|| panic!("no time: {told:#}"));
        assert!(at.abs_diff(began + after) < 500, "{at} is far from {}: {told:#}", began + after);
    }
    let carried = a.client().run("DUMP letters");
    assert_eq!(told["conflict"]["value"]["size"].as_u64(), Some(carried.bytes().len() as u64), "{told:#}");
    let said = told.to_string();
    assert!(!["alpha", "beta", "gamma"].iter().any(|content| said.contains(content)), "{told:#}");

    let status = duplex.status();
    let job = &status.0;
    assert_eq!((job["conflicts_open"].as_u64(), job["conflicts_settled"].as_u64()), (Some(0), Some(1)), "{job:#}");
    assert!(job["conflict_rounds"].as_u64() >= Some(1), "{job:#}");
    let hot = &job["hot_keys"][0];
    assert_eq!((hot["key"].as_str(), hot["conflicts"].as_u64()), (Some("letters"), Some(1)), "{job:#}");

    let words = duplex.run(&["events"]).code(0).text();
    for part in ["\"letters\"", "source  RPUSH", "target  LPUSH", "the source side's order stands", "CRC-64"] {
        assert!(words.contains(part), "{part} is missing:\n{words}");
    }
}

#[test]
fn a_job_may_ask_for_commands_and_values() {
    let (a, _b, _proxies, duplex, _, told) = met("show_values = true");
    let conflict = &told["conflict"];
    // The one that was read second revealed it, and is known whole.
    let shown: Vec<_> =
        ["source_change", "target_change"].iter().filter_map(|c| conflict[c]["text"].as_str()).collect();
    assert!(matches!(shown[..], ["RPUSH letters alpha"] | ["LPUSH letters beta gamma"]), "{told:#}");
    assert_eq!(conflict["value"]["text"].as_str(), Some("RPUSH letters gamma beta alpha"), "{told:#}");
    assert_eq!(
        a.client().run("LRANGE letters 0 -1").items().iter().map(|i| i.text()).collect::<Vec<_>>(),
        ["gamma", "beta", "alpha"]
    );
    assert!(duplex.run(&["events"]).code(0).text().contains("value   RPUSH letters gamma beta alpha"));
}
