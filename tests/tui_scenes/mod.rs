//! Scenes for the console's tests: an application as it looks after a given story, with no terminal and no engine.

#![allow(dead_code)]

use ratatui::{buffer::Buffer, layout::Rect};
use redis_duplex::{
    control::protocol::{Failure, FailureKind, KeyDifference, Probe, ProbedShard, Reply, VerifyOutcome},
    model::{
        AccountSource, Check, CheckId, CheckReport, CheckState, ConflictRecord, Direction, EngineStatus, Event,
        EventKind, HotKey, Instance, Job, JobId, JobStatus, LinkState, LinkStatus, Severity, ShardStatus, Side,
        SnapshotStatus, Topology,
        conflict::{ConflictChange, ConflictValue},
        job::{Limits, Policy},
        secret::Inline,
        status::{Alert, Sample},
    },
    tui::{
        app::App,
        effect::Effect,
        i18n::Lang,
        keymap,
        msg::{EngineMsg, FileMsg, Msg, Tag, Wanted},
        store::{AccountFrom, Draft, Inventory, Saved, Stored},
        theme::ThemeName,
        update::update,
        view::view,
    },
};

/// 2026-11-22 14:02:30 UTC.
pub const NOW: u64 = 1_795_356_150_000;

pub fn app(lang: Lang, theme: ThemeName) -> App {
    let mut app = App::new(lang, theme);
    app.config = "~/.config/duplex".into();
    update(&mut app, Msg::Tick(NOW));
    app
}

/// Types keys such as `<tab>127.0.0.1:6379<ret>`; gives what the console wants done.
pub fn press(app: &mut App, keys: &str) -> Vec<Effect> {
    keymap::keys(keys).into_iter().flat_map(|key| update(app, Msg::Key(key))).collect()
}

pub fn up(app: &mut App) {
    update(app, Msg::Engine(EngineMsg::Up { pid: 4242, engine_version: env!("CARGO_PKG_VERSION").into() }));
}

pub fn reply(app: &mut App, tag: Tag, reply: Reply) -> Vec<Effect> {
    update(app, Msg::Reply { tag, reply: Box::new(reply), last: false })
}

pub fn status(app: &mut App, jobs: Vec<JobStatus>) {
    let status = EngineStatus { version: 1, engine_pid: 4242, jobs };
    reply(app, Tag::Watch, Reply::Status { status });
}

pub fn link(direction: Direction, state: LinkState) -> LinkStatus {
    let forward = direction == Direction::Forward;
    let known = !matches!(state, LinkState::NotConfigured | LinkState::PrecheckFailed);
    LinkStatus {
        direction,
        state,
        reason: None,
        snapshot: None,
        lag_ms: known.then_some(if forward { 3 } else { 4 }),
        lag_bytes: known.then_some(0),
        changes_per_second: known.then_some(if forward { 812.0 } else { 95.0 }),
        bytes_per_second: known.then_some(if forward { 98_304 } else { 11_264 }),
        changes_applied: if forward { 31_204_118 } else { 2_204_590 },
        echoes_dropped: if forward { 2_204_590 } else { 31_204_118 },
        conflicts_settled: if forward { 12 } else { 3 },
        conflict_rounds: 14,
        conflicts_open: 0,
        apply_errors: 0,
        resume_window_seconds: known.then_some(if forward { 540 } else { 3_600 }),
        backlog_bytes: known.then_some(if forward { 64 << 20 } else { 512 << 20 }),
        spool_bytes: 0,
        spool_full: false,
        in_flight: 2,
        reconnects: u64::from(forward),
        shards: vec![ShardStatus {
            address: if forward { "10.0.0.1:6379" } else { "10.1.0.1:6379" }.into(),
            replid: Some("8f2c1d0e9b7a6c5d4e3f2a1b0c9d8e7f6a5b4c3d".into()),
            offset_received: Some(88_120_441),
            offset_applied: Some(88_120_441),
            state: Some(state),
            lag_ms: Some(3),
            slots: None,
        }],
    }
}

pub fn job(name: &str, source: &str, target: &str, states: [LinkState; 2]) -> JobStatus {
    let two_way = states[1] != LinkState::NotConfigured;
    let mut links = vec![link(Direction::Forward, states[0])];
    if two_way {
        links.push(link(Direction::Reverse, states[1]));
    }
    let state = links.iter().map(|l| l.state).max_by_key(|s| s.urgency()).unwrap_or(LinkState::NotConfigured);
    JobStatus {
        name: name.into(),
        id: JobId("0123456789ab".into()),
        state,
        reason: None,
        uptime_seconds: Some(2 * 86_400 + 4 * 3_600 + 11 * 60),
        source: source.into(),
        target: target.into(),
        two_way,
        conflicts_open: 0,
        conflicts_settled: 15,
        conflict_rounds: 28,
        hot_keys: vec![],
        links,
        alerts: vec![],
    }
}

pub fn orders() -> JobStatus {
    let mut orders = job("orders", "r-bp1abc", "r-hz9xyz", [LinkState::Synchronizing, LinkState::Synchronizing]);
    orders.alerts.push(Alert {
        rule: "resume_window_short".into(),
        direction: Some(Direction::Forward),
        severity: Severity::Warning,
        text: "the forward link can be away for 9 min before it needs a new copy".into(),
        remedy: "raise repl-backlog-size to 256mb at the source (r-bp1abc)".into(),
    });
    orders
}

pub fn all_jobs() -> Vec<JobStatus> {
    let mut profiles =
        job("profiles", "10.0.0.5:6379", "10.1.0.5:6379", [LinkState::Initializing, LinkState::NotConfigured]);
    profiles.links[0].snapshot = Some(SnapshotStatus {
        keys_done: 620_000,
        keys_total: Some(1_000_000),
        bytes_done: 62 << 20,
        bytes_total: Some(100 << 20),
        seconds_left: Some(130),
    });
    let mut carts = job("carts", "carts-a", "carts-b", [LinkState::PrecheckFailed, LinkState::NotConfigured]);
    carts.reason = Some("the target is not empty".into());
    vec![orders(), profiles, carts]
}

pub fn draft() -> Draft {
    Draft {
        name: "sessions".into(),
        step: 2,
        source: Saved { address: "10.0.0.9:6379".into(), ..Saved::default() },
        target: Saved { address: "10.1.0.9:6379".into(), ..Saved::default() },
        ..Draft::default()
    }
}

pub fn inventory() -> Inventory {
    let saved = |id: &str, region: &str, address: &str| Saved {
        id: id.into(),
        region: region.into(),
        address: address.into(),
        topology: Topology::Standalone,
        ..Saved::default()
    };
    Inventory {
        instances: vec![
            saved("r-bp1abc", "cn-hangzhou", "10.0.0.1:6379"),
            saved("r-hz9xyz", "cn-beijing", "10.1.0.1:6379"),
            Saved {
                account_from: AccountFrom::Command,
                account_place: "pass show redis".into(),
                ..saved("r-us3def", "us-west-1", "10.2.0.1:6379")
            },
        ],
    }
}

pub fn load(app: &mut App, drafts: Vec<Draft>) {
    let stored = Stored { inventory: inventory(), drafts, ..Stored::default() };
    update(app, Msg::File(FileMsg::Loaded(Box::new(stored))));
}

/// The list with three jobs and a draft.
pub fn list(lang: Lang, theme: ThemeName) -> App {
    let mut app = app(lang, theme);
    load(&mut app, vec![draft()]);
    up(&mut app);
    status(&mut app, all_jobs());
    app
}

pub fn empty(lang: Lang, theme: ThemeName) -> App {
    let mut app = app(lang, theme);
    up(&mut app);
    status(&mut app, vec![]);
    app
}

pub fn probe(version: &str, seen_as: &str, us: u64, databases: &[(u32, u64)]) -> Probe {
    Probe {
        shards: vec![ProbedShard {
            address: "10.0.0.1:6379".into(),
            version: version.into(),
            role: "master".into(),
            seen_as: seen_as.into(),
            round_trip_us: us,
        }],
        topology: Topology::Standalone,
        databases: databases.to_vec(),
        database_count: Some(16),
    }
}

/// Step 1 with both sides answered.
pub fn endpoints(lang: Lang, theme: ThemeName) -> App {
    let mut app = empty(lang, theme);
    load(&mut app, vec![]);
    press(&mut app, "n");
    // the first saved instance, then its account
    press(&mut app, "<ret><down><ret>admin:Rp829dlwa");
    press(&mut app, "<tab><tab><tab>10.1.0.1:6379<tab><tab><tab>admin:secret");
    app
}

/// The run of the probes that are under way.
pub fn probes(effects: &[Effect]) -> Vec<(Side, u32)> {
    effects
        .iter()
        .filter_map(|e| match e {
            Effect::Send { tag: Tag::Probe { side, run }, .. } => Some((*side, *run)),
            _ => None,
        })
        .collect()
}

pub fn endpoints_refused(lang: Lang, theme: ThemeName) -> App {
    let mut app = endpoints(lang, theme);
    let effects = press(&mut app, "<pgdn>");
    for (side, run) in probes(&effects) {
        let answer = match side {
            Side::Source => {
                Reply::Probed { probe: probe("Redis 7.0.15", "10.9.8.7", 400, &[(0, 1_204_118), (3, 88_020), (7, 4)]) }
            }
            Side::Target => Reply::Error {
                error: Failure {
                    kind: FailureKind::Failed,
                    message: "WRONGPASS: the server knows no such user or password".into(),
                    remedy: "It sees us as 10.9.8.7; check the account, and allow-list that address.".into(),
                },
            },
        };
        reply(&mut app, Tag::Probe { side, run }, answer);
    }
    app
}

pub fn policy(lang: Lang, theme: ThemeName) -> App {
    let mut app = endpoints(lang, theme);
    let effects = press(&mut app, "<pgdn>");
    for (side, run) in probes(&effects) {
        let databases: &[(u32, u64)] =
            if side == Side::Source { &[(0, 1_204_118), (3, 88_020), (7, 4)] } else { &[(0, 12)] };
        let found = probe("Redis 7.0.15", "10.9.8.7", if side == Side::Source { 400 } else { 31_000 }, databases);
        reply(&mut app, Tag::Probe { side, run }, Reply::Probed { probe: found });
    }
    app
}

pub fn policy_chosen(lang: Lang, theme: ThemeName) -> App {
    let mut app = policy(lang, theme);
    press(&mut app, "<down><tab><tab><down><down><space><up>");
    app
}

pub fn initialization(lang: Lang, theme: ThemeName) -> App {
    let mut app = policy(lang, theme);
    press(&mut app, "<pgdn>");
    app
}

pub fn check(id: CheckId, state: CheckState, seen: &str) -> Check {
    Check { id, state, side: None, seen: seen.into(), why: String::new(), remedy: String::new(), took_ms: 3 }
}

pub fn checks(target_empty: bool) -> Vec<Check> {
    CheckId::ALL
        .into_iter()
        .map(|id| match id {
            CheckId::Reachable => check(id, CheckState::Passed, "both, 0.4 ms and 31 ms"),
            CheckId::TargetEmpty if !target_empty => Check {
                side: Some(Side::Target),
                why: "the policy is Precheck and block, so that nothing is overwritten".into(),
                remedy: "empty db0, or choose Ignore or Merge in step 2, then rerun".into(),
                ..check(id, CheckState::Failed, "db0 of 10.1.0.1:6379 holds 12 keys, e.g. \"user:1\", \"user:2\"")
            },
            CheckId::Backlog => Check {
                side: Some(Side::Source),
                why: "a longer interruption means that all has to be copied again".into(),
                remedy: "CONFIG SET repl-backlog-size 512mb at 10.0.0.1:6379".into(),
                ..check(id, CheckState::Warning, "resume window 9 min at today's write rate")
            },
            CheckId::MaxmemoryPolicy => Check {
                side: Some(Side::Target),
                why: "evicted keys look like deletions, and would be deleted at the other side".into(),
                remedy: "CONFIG SET maxmemory-policy noeviction".into(),
                ..check(id, CheckState::Warning, "target: allkeys-lru")
            },
            id => check(id, CheckState::Passed, "as it should be"),
        })
        .collect()
}

/// The run of the precheck that is under way.
pub fn precheck_run(effects: &[Effect]) -> u32 {
    effects
        .iter()
        .find_map(|e| match e {
            Effect::Send { tag: Tag::Precheck { run }, .. } => Some(*run),
            _ => None,
        })
        .expect("a precheck")
}

pub fn report(app: &mut App, run: u32, items: Vec<Check>) {
    for item in &items {
        reply(app, Tag::Precheck { run }, Reply::Check { check: item.clone() });
    }
    let passed = items.iter().all(|c| c.state != CheckState::Failed);
    let report = CheckReport { version: 1, job: "sync-2026-11-22".into(), passed, items };
    reply(app, Tag::Precheck { run }, Reply::Report { report });
}

pub fn precheck_running(lang: Lang, theme: ThemeName) -> App {
    let mut app = initialization(lang, theme);
    let effects = press(&mut app, "<pgdn>");
    let run = precheck_run(&effects);
    for (i, item) in checks(false).into_iter().enumerate() {
        if i == 16 {
            reply(&mut app, Tag::Precheck { run }, Reply::Check { check: check(item.id, CheckState::Running, "") });
        } else if i < 15 {
            reply(&mut app, Tag::Precheck { run }, Reply::Check { check: item });
        }
    }
    app
}

pub fn precheck_failed(lang: Lang, theme: ThemeName) -> App {
    let mut app = initialization(lang, theme);
    let effects = press(&mut app, "<pgdn>");
    report(&mut app, precheck_run(&effects), checks(false));
    app
}

pub fn launch(lang: Lang, theme: ThemeName) -> App {
    let mut app = initialization(lang, theme);
    let effects = press(&mut app, "<pgdn>");
    report(&mut app, precheck_run(&effects), checks(true));
    press(&mut app, "W<pgdn>");
    app
}

pub fn launch_overwriting(lang: Lang, theme: ThemeName) -> App {
    let mut app = policy(lang, theme);
    press(&mut app, "<down><pgdn>");
    let effects = press(&mut app, "<pgdn>");
    report(&mut app, precheck_run(&effects), checks(true));
    press(&mut app, "W<pgdn><pgdn>");
    app
}

pub fn event(
    seq: u64,
    seconds_ago: u64,
    direction: Option<Direction>,
    severity: Severity,
    kind: EventKind,
    text: &str,
) -> Event {
    Event {
        seq,
        at_ms: NOW - seconds_ago * 1000,
        job: "orders".into(),
        direction,
        severity,
        kind,
        text: text.into(),
        conflict: None,
    }
}

pub fn events() -> Vec<Event> {
    let forward = Some(Direction::Forward);
    vec![
        event(1, 7_200, None, Severity::Info, EventKind::JobStarted, "both links have started"),
        event(2, 7_190, forward, Severity::Info, EventKind::SnapshotStarted, "copying the snapshot of 10.0.0.1:6379"),
        event(
            3,
            7_010,
            forward,
            Severity::Info,
            EventKind::SnapshotFinished,
            "the snapshot is read: 1204118 keys; its stream follows",
        ),
        event(
            4,
            291,
            forward,
            Severity::Warning,
            EventKind::Disconnected,
            "10.0.0.1:6379 closed the connection while we tried to read its stream; see the server's log: a TLS port \
             closes on plain text, and a full server on everybody",
        ),
        event(
            5,
            290,
            forward,
            Severity::Info,
            EventKind::Resumed,
            "reading the stream of 10.0.0.1:6379 from offset 88120441",
        ),
        event(
            6,
            19,
            None,
            Severity::Info,
            EventKind::ConflictSettled,
            "conflict on \"cart:881\" (db0) settled: concurrent write, the target side's order stands, 1 round",
        ),
    ]
}

fn history(direction: Direction) -> redis_duplex::control::protocol::LinkHistory {
    let wave = |at: u64| {
        let x = at as f32 / 60.0;
        let base = if direction == Direction::Forward { 800.0 } else { 90.0 };
        base * (1.0 + 0.6 * x.sin() + 0.3 * (x * 2.7).sin()).max(0.1)
    };
    let sample = |at: u64| Sample {
        at,
        lag_ms: Some(if at.is_multiple_of(173) { 21 } else { 2 + (at % 7) as u32 / 2 }),
        changes_per_second: wave(at),
        bytes_per_second: wave(at) * 120.0,
    };
    let now = NOW / 1000;
    redis_duplex::control::protocol::LinkHistory {
        direction,
        seconds: (now - 899..=now).map(sample).collect(),
        half_minutes: (0..720).rev().map(|i| sample((now / 30 - i) * 30)).collect(),
    }
}

pub fn dashboard(lang: Lang, theme: ThemeName) -> App {
    let mut app = list(lang, theme);
    press(&mut app, "<ret>");
    let links = Direction::BOTH.into_iter().map(history).collect();
    reply(&mut app, Tag::History { job: "orders".into() }, Reply::History { links });
    for event in events() {
        reply(&mut app, Tag::Events, Reply::Event { event });
    }
    app
}

pub fn initializing(lang: Lang, theme: ThemeName) -> App {
    let mut app = empty(lang, theme);
    let mut job = job("orders", "r-bp1abc", "r-hz9xyz", [LinkState::Initializing, LinkState::CatchingUp]);
    job.links[0].snapshot = all_jobs()[1].links[0].snapshot.clone();
    job.links[0].lag_ms = None;
    job.links[0].lag_bytes = None;
    job.links[1].lag_ms = None;
    status(&mut app, vec![job]);
    press(&mut app, "<ret>");
    app
}

pub fn shards(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, "s");
    app
}

/// A cluster at the source, one of whose shards is away.
fn cluster_job() -> JobStatus {
    let mut job = orders();
    job.alerts.clear();
    job.links[0].shards = (1..=3)
        .map(|n| ShardStatus {
            address: format!("10.0.0.{n}:7000"),
            replid: Some(format!("{n}f2c1d0e9b7a6c5d4e3f2a1b0c9d8e7f6a5b4c3d")),
            offset_received: Some(88_120_441 + n * 1_000),
            offset_applied: Some(88_120_441),
            state: Some(if n == 2 { LinkState::Reconnecting } else { LinkState::Synchronizing }),
            lag_ms: (n != 2).then_some(n),
            slots: Some(format!("{}-{}", (n - 1) * 5461, n * 5461 - 1)),
        })
        .collect();
    job.links[0].state = LinkState::Reconnecting;
    job.links[0].reason = Some("10.0.0.2:7000 refused the connection; check that the server runs".into());
    job.state = LinkState::Reconnecting;
    job
}

pub fn cluster(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    status(&mut app, vec![cluster_job()]);
    app
}

pub fn cluster_shards(lang: Lang, theme: ThemeName) -> App {
    let mut app = cluster(lang, theme);
    press(&mut app, "s<down>");
    app
}

/// Step 1 for sentinels at the source, with TLS and a client certificate, and a cluster at the target.
pub fn endpoints_kinds(lang: Lang, theme: ThemeName) -> App {
    let mut app = empty(lang, theme);
    press(&mut app, "n<tab>10.0.0.1, 10.0.0.2, 10.0.0.3<tab><right><right><right><right>");
    press(
        &mut app,
        "<tab>mymaster<tab><right><tab>watch:hidden<tab><right><tab><tab>admin:Rp829dlwa<tab><right><right>",
    );
    press(&mut app, "<tab>/etc/ssl/ca.pem<tab>/etc/ssl/client.pem<tab>/etc/ssl/client.key<tab>redis.example");
    press(&mut app, "<tab><tab>10.1.0.1:7000, 10.1.0.2:7000<tab><right><right><right>");
    app
}

/// The form of a job that runs one way and gets its reverse link.
pub fn one_way(lang: Lang, theme: ThemeName) -> App {
    let mut app = list(lang, theme);
    press(&mut app, "<down>");
    app
}

pub fn reverse_asked(lang: Lang, theme: ThemeName) -> App {
    let mut app = one_way(lang, theme);
    press(&mut app, "c");
    app
}

/// What the engine tells of a job with accounts that were typed.
pub fn told_job(name: &str, unkept: bool) -> Job {
    let account = || AccountSource::Inline(if unkept { Inline::unkept("") } else { Inline::new("") });
    let instance =
        |address: &str| Instance { addresses: vec![address.into()], account: account(), ..Instance::default() };
    Job {
        name: name.into(),
        source: instance("10.0.0.5:6379"),
        target: instance("10.1.0.5:6379"),
        policy: Policy { two_way: false, ..Policy::default() },
        limits: Limits::default(),
    }
}

pub fn reverse_step_1(lang: Lang, theme: ThemeName) -> App {
    let mut app = reverse_asked(lang, theme);
    press(&mut app, "<ret>");
    let tag = Tag::JobFile { job: "profiles".into(), wanted: Wanted::Configure(Direction::Reverse) };
    reply(&mut app, tag, Reply::Job { job: Box::new(told_job("profiles", false)) });
    app
}

pub fn reverse_launch(lang: Lang, theme: ThemeName) -> App {
    let mut app = reverse_step_1(lang, theme);
    let effects = press(&mut app, "<pgdn>");
    for (side, run) in probes(&effects) {
        let found = probe("Redis 7.0.15", "10.9.8.7", 400, &[(0, 1_000_000)]);
        reply(&mut app, Tag::Probe { side, run }, Reply::Probed { probe: found });
    }
    let effects = press(&mut app, "<pgdn><pgdn>");
    report(&mut app, precheck_run(&effects), checks(true));
    press(&mut app, "W<pgdn>");
    app
}

/// A job whose accounts are kept nowhere, after a restart of the engine.
pub fn account_missing(lang: Lang, theme: ThemeName) -> App {
    let mut app = empty(lang, theme);
    let mut job = job("orders", "10.0.0.5:6379", "10.1.0.5:6379", [LinkState::Failed, LinkState::Failed]);
    job.alerts.push(Alert {
        rule: "account_missing".into(),
        direction: None,
        severity: Severity::Error,
        text: "its account was typed and is kept nowhere, so it has to be typed again".into(),
        remedy: "resume the job in the console: it asks for the account".into(),
    });
    status(&mut app, vec![job]);
    app
}

/// A job whose first start failed, and what its keys lead to.
pub fn failed(lang: Lang, theme: ThemeName) -> App {
    let mut app = empty(lang, theme);
    let mut orders = job("orders", "r-bp1abc", "r-hz9xyz", [LinkState::Failed, LinkState::Failed]);
    orders.reason = Some("10.1.0.1:6379 refused the connection; check that the server runs".into());
    for link in &mut orders.links {
        link.reason = orders.reason.clone();
        (link.lag_ms, link.lag_bytes, link.changes_per_second) = (None, None, None);
    }
    status(&mut app, vec![orders]);
    app
}

pub fn failed_dashboard(lang: Lang, theme: ThemeName) -> App {
    let mut app = failed(lang, theme);
    press(&mut app, "<ret>");
    app
}

pub fn retry_asked(lang: Lang, theme: ThemeName) -> App {
    let mut app = failed_dashboard(lang, theme);
    press(&mut app, "p");
    app
}

pub fn abandon_asked(lang: Lang, theme: ThemeName) -> App {
    let mut app = failed(lang, theme);
    press(&mut app, "D");
    app
}

pub fn account_asked(lang: Lang, theme: ThemeName) -> App {
    let mut app = account_missing(lang, theme);
    press(&mut app, "p");
    let tag = Tag::JobFile { job: "orders".into(), wanted: Wanted::Account };
    reply(&mut app, tag, Reply::Job { job: Box::new(told_job("orders", true)) });
    press(&mut app, "admin:Rp829dlwa");
    app
}

pub fn detail(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, "<ret>");
    app
}

pub fn event_log(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, "e<down>");
    app
}

pub fn conflicts(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, "k");
    let change = |command: &str, size, ms, text: Option<&str>| {
        let (command, text) = (command.into(), text.map(str::to_owned));
        Some(ConflictChange { command, size, at_ms: Some(ms), text })
    };
    let value =
        ConflictValue { size: 58, hash: "0ab330d83b2c5926".into(), text: Some("HSET cart:77 sku 4711 n 2".into()) };
    let record = |number: u64, key: &str, settled: Option<u64>| ConflictRecord {
        number,
        db: 0,
        key: key.into(),
        authority: if number.is_multiple_of(2) { Side::Source } else { Side::Target },
        cause: if number.is_multiple_of(3) { "write_beats_delete" } else { "concurrent_write" }.into(),
        source_change: change("HDEL", None, NOW - 20_018, None),
        target_change: change("HSET", Some(42), NOW - 20_000, Some("HSET cart:77 n 2")),
        opened_ms: NOW - 20_000,
        settled_ms: settled,
        rounds: 1 + (number % 3) as u32,
        value: Some(Box::new(value.clone())),
    };
    let conflicts = Reply::Conflicts {
        open: vec![record(16, "cart:77", None)],
        settled: (1..=15).rev().map(|n| record(n, &format!("cart:{}", 880 + n), Some(NOW - 20_000 + n * 7))).collect(),
        hottest: vec![HotKey { db: 0, key: "cart:881".into(), conflicts: 12, rounds: 19 }],
    };
    reply(&mut app, Tag::Conflicts { job: "orders".into() }, conflicts);
    app
}

pub fn stopping(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, "xorde");
    app
}

pub fn verified(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, "v<ret>");
    let outcome = VerifyOutcome {
        version: 1,
        keys_compared: 1_204_118,
        equal: false,
        differing: 2,
        missing_at_source: 0,
        missing_at_target: 1,
        repaired: 0,
        examples: vec![
            KeyDifference { db: 0, key: "user:17".into(), difference: "value".into() },
            KeyDifference { db: 0, key: "购物车:88".into(), difference: "expiry 1000 / none".into() },
            KeyDifference { db: 3, key: "queue".into(), difference: "missing at target".into() },
        ],
        seconds: 41.2,
    };
    reply(&mut app, Tag::Verify { job: "orders".into() }, Reply::Verified { outcome });
    app
}

pub fn help(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, "?");
    app
}

pub fn palette(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    press(&mut app, ":");
    app
}

pub fn instances(lang: Lang, theme: ThemeName) -> App {
    let mut app = list(lang, theme);
    press(&mut app, "i");
    app
}

pub fn instance_form(lang: Lang, theme: ThemeName) -> App {
    let mut app = instances(lang, theme);
    press(&mut app, "<down><down><ret>");
    app
}

pub fn gone(lang: Lang, theme: ThemeName) -> App {
    let mut app = dashboard(lang, theme);
    update(&mut app, Msg::Tick(NOW));
    update(&mut app, Msg::Engine(EngineMsg::Down { why: "the engine has ended or closed the connection".into() }));
    update(&mut app, Msg::Tick(NOW + 12_000));
    app
}

pub type Scene = (&'static str, fn(Lang, ThemeName) -> App);

/// Every screen, by name.
pub const SCENES: &[Scene] = &[
    ("jobs_empty", empty),
    ("jobs", list),
    ("wizard_1_endpoints", endpoints),
    ("wizard_1_refused", endpoints_refused),
    ("wizard_1_kinds", endpoints_kinds),
    ("wizard_2_policy", policy),
    ("wizard_2_chosen", policy_chosen),
    ("wizard_3_initialization", initialization),
    ("wizard_4_running", precheck_running),
    ("wizard_4_failed", precheck_failed),
    ("wizard_4_launch", launch),
    ("wizard_4_overwriting", launch_overwriting),
    ("reverse_asked", reverse_asked),
    ("reverse_step_1", reverse_step_1),
    ("reverse_launch", reverse_launch),
    ("dashboard", dashboard),
    ("dashboard_cluster", cluster),
    ("dashboard_cluster_shards", cluster_shards),
    ("jobs_failed", failed),
    ("dashboard_failed", failed_dashboard),
    ("retry_asked", retry_asked),
    ("abandon_asked", abandon_asked),
    ("account_missing", account_missing),
    ("account_asked", account_asked),
    ("dashboard_initializing", initializing),
    ("dashboard_detail", detail),
    ("dashboard_shards", shards),
    ("dashboard_events", event_log),
    ("dashboard_conflicts", conflicts),
    ("dashboard_stop", stopping),
    ("dashboard_verified", verified),
    ("dashboard_engine_gone", gone),
    ("help", help),
    ("palette", palette),
    ("instances", instances),
    ("instance_form", instance_form),
];

pub fn draw(app: &App, columns: u16, rows: u16) -> Buffer {
    let area = Rect::new(0, 0, columns, rows);
    let mut buf = Buffer::empty(area);
    view(app, area, &mut buf);
    buf
}

/// The rows of a buffer as text, without the blank halves of wide characters.
pub fn rows(buf: &Buffer) -> Vec<String> {
    use unicode_width::UnicodeWidthStr;
    let area = buf.area;
    (0..area.height)
        .map(|y| {
            let mut row = String::new();
            let mut x = 0;
            while x < area.width {
                let symbol = buf[(x, y)].symbol();
                row.push_str(symbol);
                x += symbol.width().max(1) as u16;
            }
            row
        })
        .collect()
}
