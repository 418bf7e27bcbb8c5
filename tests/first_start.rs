//! A start that fails half way: nothing of it is in the way of the next try, and the next try is one command.

mod support;

use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use support::{server::signal, versions::Slot, wait::until, *};

/// A source whose snapshot is some seconds in coming, so that the start can be cut in the middle, and a target behind a
/// line that can be cut.
struct Stage {
    a: Server,
    b: Server,
    line: Proxy,
    duplex: Duplex,
}

impl Stage {
    fn new() -> Stage {
        let a = Server::start("redis-7.0", &["--repl-diskless-sync-delay", "3"]);
        let b = Server::start("redis-7.0", &[]);
        let line = Proxy::to(b.port);
        a.client().run("SET before 1");
        let mut duplex = Duplex::new(&JobSpec::between(a.addr(), line.addr()));
        duplex.engine();
        Stage { a, b, line, duplex }
    }

    /// A control key stands at the source: the reverse stream is attached, the forward one waits for its snapshot.
    fn half_way(&self) {
        wait_for("the first control key", secs(30), || match self.keys(&self.a) {
            keys if keys.is_empty() => Err("none".into()),
            _ => Ok(()),
        });
        assert!(self.keys(&self.b).is_empty(), "the start is through already");
    }

    /// The control keys at a server.
    fn keys(&self, server: &Server) -> Vec<String> {
        server.client().call(&["KEYS", "duplex:*"]).items().iter().map(|k| k.text()).collect()
    }

    fn file(&self) -> &str {
        self.duplex.job_file.to_str().expect("a path")
    }

    /// Starts the job and cuts the line in the middle of it.
    fn fail(&self) {
        let (mut starting, said) = self.duplex.spawn(&["start", self.file()]);
        self.half_way();
        self.line.refuse(true);
        self.line.cut();
        wait_for("the start fails", secs(60), || match starting.try_wait().expect("duplex start") {
            Some(status) if status.code() == Some(1) => Ok(()),
            other => Err(format!("{other:?}: {}", said.lock().expect("its text"))),
        });
        assert_eq!(self.duplex.status().state(), "failed");
        assert!(!self.keys(&self.a).is_empty(), "the test is about what such a start leaves");
    }

    fn is_in_step(&self) {
        self.duplex.wait_state("synchronizing", secs(60));
        self.b.client().run("SET from-b 2");
        assert_equal_within(&self.a, &self.b, secs(30));
        assert_eq!(self.keys(&self.a).len(), 1, "one control key, no older job's beside it");
    }
}

#[test]
fn what_failed_at_its_first_start_is_resumed_by_starting_it_again() {
    let stage = Stage::new();
    stage.fail();
    // still away: said item by item
    stage.duplex.run(&["resume", "orders"]).code(3).says(&["reachable", "precheck failed"]);
    stage.line.refuse(false);
    // what came into the target meanwhile is seen: nothing was copied yet, so it is checked again
    stage.b.client().run("SET in-the-way 1");
    stage.duplex.run(&["resume", "orders"]).code(3).says(&["target empty", "in-the-way"]);
    stage.b.client().run("DEL in-the-way");
    stage.duplex.run(&["resume", "orders"]).code(0).says(&["goes on"]);
    stage.is_in_step();
    // and it goes on like any other from now on
    stage.duplex.run(&["pause", "orders"]).code(0);
    stage.b.client().run("SET while-paused 1");
    stage.duplex.run(&["resume", "orders"]).code(0);
    stage.is_in_step();
    stage.duplex.run(&["stop", "orders"]).code(0);
    assert!(stage.keys(&stage.a).is_empty() && stage.keys(&stage.b).is_empty());
}

#[test]
fn a_first_start_that_was_cut_short_is_gone_on_with() {
    let mut stage = Stage::new();
    // by a pause
    let (mut starting, _) = stage.duplex.spawn(&["start", stage.file()]);
    stage.half_way();
    stage.duplex.run(&["pause", "orders"]).code(0);
    wait_for("the start is broken off", secs(30), || match starting.try_wait().expect("duplex start") {
        Some(status) if status.code() != Some(0) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(stage.duplex.status().state(), "paused");
    // by a stop, which cleans up
    stage.duplex.run(&["stop", "orders"]).code(0);
    assert!(stage.keys(&stage.a).is_empty());
    // by the death of the engine: the next one goes on by itself
    let (_starting, _) = stage.duplex.spawn(&["start", stage.file()]);
    stage.half_way();
    signal(stage.duplex.engine_pid(), Signal::SIGKILL);
    stage.duplex.crash();
    stage.duplex.revive();
    stage.is_in_step();
}

/// The target was empty when it was looked at, and its stream can be had some seconds later only: what its clients write in
/// between would be there alone, so the start is refused.
#[test]
fn what_comes_to_the_target_before_its_stream_is_had_is_told() {
    for server in ["redis-7.0", Slot::NewestValkey.server()] {
        let a = Server::start(server, &[]);
        let b = Server::start(server, &["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "3"]);
        a.client().run("MSET before 1 both from-a");
        let mut duplex = Duplex::new(&JobSpec::between(a.addr(), b.addr()));
        duplex.engine();
        let file = duplex.job_file.to_str().expect("a path").to_owned();
        let (mut starting, said) = duplex.spawn(&["start", &file]);
        let mut at_b = b.client();
        wait_for("the target's snapshot is asked for", secs(30), || match at_b.call(&["INFO", "replication"]).text() {
            info if info.contains("connected_slaves:1") => Ok(()),
            info => Err(info),
        });
        at_b.run("SET early from-b");
        wait_for("the start is refused", secs(30), || match starting.try_wait().expect("duplex start") {
            Some(status) if status.code() == Some(1) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let told = |said: String| said.contains("such as db0 \"early\"") && said.contains("choose the policy `merge`");
        wait_for("the words", secs(5), || match said.lock().expect("its text").clone() {
            text if told(text.clone()) => Ok(()),
            text => Err(text),
        });
        assert_eq!(at_b.run("EXISTS before").int(), 0, "something was copied");
        assert_eq!(a.client().run("EXISTS early").int(), 0);
        // as the words say
        at_b.run("DEL early");
        duplex.run(&["resume", "orders"]).code(0);
        duplex.wait_state("synchronizing", secs(60));
        at_b.run("SET late from-b");
        assert_eq!(assert_equal_within(&a, &b, secs(30)).len(), 3);
    }
}

/// A target that has lost everything: what is said names the way out, and the alert stays until it is taken.
#[test]
fn a_target_that_came_back_empty_is_started_anew() {
    let a = Server::start("redis-7.0", &[]);
    let mut b = Server::start("redis-7.0", &[]);
    a.client().run("SET before 1");
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    b.kill();
    b.restart();
    duplex.wait_state("failed", secs(60));
    let alert = |kind: &str| {
        let events = duplex.run(&["events", "orders", "--json"]).code(0).stdout;
        events.lines().filter(|l| l.contains(kind) && l.contains("link has failed")).count()
    };
    wait_for("the alert", secs(20), || if alert("alert_raised") > 0 { Ok(()) } else { Err("none".into()) });
    // It is looked at again now and then, and told once more at most.
    let failures = || {
        let events = duplex.run(&["events", "orders", "--json"]).code(0).stdout;
        events.lines().filter(|l| l.contains("\"failed\"") && l.contains("holds no control key")).count()
    };
    let mut at_the_target = b.client();
    let mut dialled = || {
        let info = at_the_target.call(&["INFO", "stats"]).text();
        let line = info.lines().find_map(|l| l.strip_prefix("total_connections_received:")).expect("its line");
        line.trim().parse::<u64>().expect("a number")
    };
    for again in 1..=2 {
        let before = dialled();
        wait_for("another look", secs(30), || if dialled() > before { Ok(()) } else { Err(again.to_string()) });
        wait_for("its end", secs(10), || match duplex.status().state() {
            "failed" => Ok(()),
            other => Err(other.to_owned()),
        });
    }
    assert_eq!(failures(), 1);
    duplex.run(&["resume", "orders"]).code(1).says(&["holds no control key", "--discard-previous"]);
    // some looks at the alerts go by: what was tried in vain has not ceased
    until(Instant::now() + Duration::from_millis(2_500));
    assert_eq!((duplex.status().state(), alert("alert_cleared")), ("failed", 0));
    duplex.run(&["start", duplex.job_file.to_str().expect("a path"), "--discard-previous"]).code(0);
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a, &b, secs(30));
    wait_for("the end of the alert", secs(20), || if alert("alert_cleared") > 0 { Ok(()) } else { Err("none".into()) });
}

#[test]
fn a_second_job_on_the_same_pair_is_told_which_the_first_is() {
    // Given a job that runs.
    let (a, b) = (Server::start("redis-7.0", &[]), Server::start("redis-7.0", &[]));
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    // When another is started between the same two.
    let spec = JobSpec::between(a.addr(), b.addr()).name("again").policy("existing_keys = \"merge\"");
    let file = duplex.home().join("again.toml");
    std::fs::write(&file, spec.toml()).expect("write the job file");
    // Then the first is named, as `stop` takes it.
    let file = file.to_str().expect("a path");
    duplex.run(&["start", file]).code(3).says(&["job orders (", "syncs these two", "duplex stop orders"]);
    duplex.run(&["stop", "orders"]).code(0);
    duplex.run(&["start", file]).code(0);
}
