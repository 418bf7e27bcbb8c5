//! The real binary in a pseudo-terminal, typed as a person types, against real servers: from an empty home to both
//! links synchronizing, in both languages; mistakes and their mending; every way out leaves the terminal sane.

mod support;

#[path = "support/authority.rs"]
mod authority;
#[path = "tui_terminal/console.rs"]
mod console;
#[path = "sentinel/group.rs"]
#[allow(dead_code, reason = "the failover suite uses the rest")]
mod group;
#[path = "tui_terminal/kinds.rs"]
mod kinds;
#[path = "tui_terminal/shells.rs"]
mod shells;

use console::{Console, Home};
use nix::sys::signal::{Signal, kill};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use support::{Client, Proxy, Server, secs};

fn server() -> Server {
    Server::start("redis-7.0", &["--requirepass", "s3cret", "--repl-diskless-sync-delay", "0"])
}

fn set(client: &mut Client, key: &str, value: &str) {
    let reply = client.call(&["SET", key, value]);
    assert!(!reply.is_error(), "SET");
}

#[test]
fn from_an_empty_home_to_both_links_in_both_languages() {
    for (lang, words) in [
        (
            "en",
            [
                "No sync job yet",
                "SELECTED",
                "Both ways",
                "ready to start",
                "Start both links",
                "synchronizing both ways",
            ],
        ),
        ("zh-CN", ["还没有同步作业", "已选择对象", "双向同步", "可以启动", "启动双向同步", "双向同步中"]),
    ] {
        let (a, b) = (server(), server());
        set(&mut a.client(), "before", "1");
        let home = Home::new();
        let mut c = Console::open(&home.0, &["--lang", lang], &[]);
        c.shows(&[words[0]]);
        c.type_("n");
        c.shows(&["[ sync-"]);
        // a wrong password first, then the right one
        c.type_(&format!(
            "<tab>{}<tab><tab><tab>wrong<tab><tab><tab>{}<tab><tab><tab>s3cret<pgdn>",
            a.addr(),
            b.addr()
        ));
        c.shows(&["WRONGPASS", "127.0.0.1 ·"]);
        c.type_("<ctrl-u>s3cret<pgdn>");
        c.shows(&[words[1], "db0"]);
        // back and forth: the answers stay
        c.type_("<pgup>");
        c.shows(&[&a.addr(), &b.addr()]);
        c.type_("<pgdn>");
        c.shows(&[words[1]]);
        c.type_("<pgdn>");
        c.shows(&[words[2]]);
        c.type_("<pgdn>");
        c.until("finished precheck", |text| {
            text.contains("20") && (text.contains("✔ Precheck passed") || text.contains("预检查通过"))
        });
        c.type_("W<pgdn>");
        c.shows(&[words[4], "duplex start"]);
        c.type_("<pgdn>");
        c.shows(&[words[5]]);

        set(&mut a.client(), "from-a", "1");
        set(&mut b.client(), "from-b", "2");
        support::assert_equal_within(&a, &b, secs(30));

        // detached, the sync goes on; the job file holds no password
        c.type_("q");
        assert_eq!(c.ends(), 0);
        c.is_sane();
        c.shows(&["duplex"]);
        set(&mut b.client(), "detached", "3");
        support::assert_equal_within(&a, &b, secs(30));
        let jobs = home.0.path().join("config/jobs");
        let file = std::fs::read_dir(jobs).expect("jobs").next().expect("a job file").expect("entry").path();
        assert!(!std::fs::read_to_string(file).expect("the job file").contains("s3cret"));

        // attached again, watching only
        let mut watching = Console::open(&home.0, &["--lang", lang, "--readonly"], &[]);
        watching.shows(&["sync-"]);
        watching.type_("x");
        watching.shows(&["--readonly"]);
        watching.type_("<ret>");
        watching.shows(&["backlog", "lag"][..usize::from(lang == "en")]);
        watching.shows(&["● 同步中", "积压缓冲"][..2 * usize::from(lang != "en")]);
        watching.type_("q");
        assert_eq!(watching.ends(), 0);
    }
}

#[test]
fn a_target_that_is_not_empty_is_mended_outside_and_rerun() {
    let (a, b) = (server(), server());
    set(&mut b.client(), "user:1", "there");
    let home = Home::new();
    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["No sync job yet"]);
    c.type_("<ret>");
    c.shows(&["[ sync-"]);
    c.type_(&format!("<tab>{}<tab><tab><tab>s3cret<tab><tab><tab>{}<tab><tab><tab>s3cret<pgdn>", a.addr(), b.addr()));
    c.shows(&["SELECTED"]);
    // a resize in mid-form loses nothing
    c.resize(50, 10);
    c.shows(&["60x15"]);
    c.resize(80, 24);
    c.shows(&["SELECTED", "Precheck and block"]);
    c.type_("<pgdn>");
    c.shows(&["Both ways"]);
    c.type_("<pgdn>");
    c.shows(&["Precheck failed", "✖ Target is empty"]);
    c.type_("<pgdn>");
    c.shows(&["Mend what failed"]);
    assert!(!b.client().call(&["FLUSHALL"]).is_error());
    c.type_("f");
    c.shows(&["✔ Target is empty"]);
    // left in the middle, the draft is there and is gone on with
    c.type_("<esc>");
    c.shows(&["draft, step 4 of 4"]);
    c.type_("q");
    assert_eq!(c.ends(), 0);
    let mut again = Console::open(&home.0, &["--lang", "en"], &[]);
    again.shows(&["draft, step 4 of 4"]);
    again.type_("<ret>");
    again.shows(&[&a.addr(), &b.addr(), "user:password"]);
    again.type_("<ctrl-c>");
    again.shows(&["Ctrl-C again"]);
    again.type_("<ctrl-c>");
    assert_eq!(again.ends(), 0);
    again.is_sane();
}

#[test]
fn an_engine_that_goes_is_said_and_comes_back() {
    let home = Home::new();
    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["engine ● running"]);
    let old = home.engine_pid().expect("an engine");
    kill(old, Signal::SIGKILL).expect("killed");
    c.shows(&["engine gone", "No engine for"]);
    c.type_("g");
    c.shows(&["engine ● running", "restarted"]);
    assert_ne!(home.engine_pid().expect("an engine"), old);
    c.type_("q");
    assert_eq!(c.ends(), 0);
}

/// The console's own input used to lose a key that came together with a resize, until the next one.
#[test]
fn a_key_typed_while_the_window_is_resized_is_not_lost() {
    let home = Home::new();
    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["No sync job yet"]);
    for n in 0..20 {
        c.resize(80 + n % 5, 24 + n % 3);
        c.type_("?");
        c.shows(&["next theme"]);
        c.resize(90 - n % 5, 26 - n % 3);
        c.type_("?");
        c.until("no help", |text| !text.contains("next theme") && text.contains("No sync job yet"));
    }
    // and more than one read's worth of pasted text arrives whole
    c.type_("n");
    c.shows(&["step 1 of 4"]);
    c.type_("<tab>");
    c.type_(&"x".repeat(3000));
    c.type_("end-of-it");
    c.shows(&["end-of-it"]);
    c.type_("<esc>");
    c.shows(&["draft, step 1 of 4"]);
    c.type_("q");
    assert_eq!(c.ends(), 0);
}

#[test]
fn a_running_one_way_job_is_made_two_way_on_the_screen() {
    let (a, b) = (server(), server());
    set(&mut a.client(), "both", "of the source");
    let home = Home::new();
    let file = home.0.path().join("job.toml");
    let side = |s: &Server| format!("address = \"{}\"\naccount = \"s3cret\"\n", s.addr());
    let text = format!("name = \"orders\"\n[source]\n{}[target]\n{}[policy]\ntwo_way = false\n", side(&a), side(&b));
    std::fs::write(&file, text).expect("a job file");
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_duplex"))
        .arg("start")
        .arg(&file)
        .env("DUPLEX_HOME", home.0.path())
        .output()
        .expect("started");
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    // what an application has written at the target alone so far
    set(&mut b.client(), "target-only", "1");

    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["orders", "not configured"]);
    c.type_("c");
    c.shows(&["Add the reverse link", "sides swapped"]);
    c.type_("<ret>");
    c.shows(&["Configure reverse link", "held by the engine"]);
    c.type_("<pgdn>");
    c.shows(&["SELECTED", "(•) Merge both ways"]);
    c.type_("<pgdn>");
    c.shows(&["(•) Both ways"]);
    c.type_("<pgdn>");
    c.shows(&["✔ Precheck passed"]);
    c.type_("W<pgdn>");
    c.shows(&["Stop, then start both links", "type orders"]);
    // until now the forward link has gone on
    set(&mut a.client(), "meanwhile", "2");
    support::wait_for("the forward link", secs(20), || match b.client().call(&["GET", "meanwhile"]).text().as_ref() {
        "2" => Ok(()),
        other => Err(other.to_owned()),
    });
    c.type_("<pgdn>orders<pgdn>");
    c.shows(&["synchronizing both ways"]);
    set(&mut b.client(), "from-b", "3");
    support::assert_equal_within(&a, &b, secs(30));
    assert_eq!(a.client().call(&["GET", "target-only"]).text(), "1");
    c.type_("q");
    assert_eq!(c.ends(), 0);
}

#[test]
fn a_password_that_is_kept_nowhere_is_asked_for_after_the_engine_was_started_anew() {
    let (a, b) = (server(), server());
    let home = Home::new();
    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["No sync job yet"]);
    c.type_("n");
    c.shows(&["[ sync-"]);
    let side = |s: &Server| format!("<tab>{}<tab><tab><right><tab>s3cret<tab><tab>", s.addr());
    c.type_(&side(&a));
    c.type_(side(&b).strip_suffix("<tab><tab>").expect("the last"));
    c.shows(&["kept nowhere"]);
    c.type_("<pgdn>");
    c.shows(&["SELECTED"]);
    c.type_("<pgdn>");
    c.shows(&["Both ways"]);
    c.type_("<pgdn>");
    c.shows(&["✔ Precheck passed"]);
    c.type_("W<pgdn>");
    c.shows(&["Kept nowhere", "After a restart of the engine"]);
    c.type_("<pgdn>");
    c.shows(&["synchronizing both ways"]);
    // no file holds it
    let mut folders = vec![home.0.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                assert!(!bytes.windows(6).any(|w| w == b"s3cret"), "{}", entry.path().display());
            }
        }
    }
    kill(home.engine_pid().expect("an engine"), Signal::SIGKILL).expect("killed");
    c.shows(&["engine gone"]);
    c.type_("g");
    c.shows(&["kept nowhere"]);
    c.type_("p");
    c.shows(&["Password for sync-", "typed again"]);
    c.type_("wrong<tab>s3cret<ret>");
    // a wrong one is no better than none
    c.shows(&["precheck failed", "kept nowhere"]);
    c.type_("p");
    c.shows(&["Password for sync-"]);
    c.type_("s3cret<tab>s3cret<ret>");
    c.shows(&["synchronizing both ways"]);
    set(&mut b.client(), "after", "1");
    support::assert_equal_within(&a, &b, secs(30));
    c.type_("q");
    assert_eq!(c.ends(), 0);
}

/// The control keys of a job that was half started are no obstacle, and what keeps it from starting is shown.
#[test]
fn a_first_start_that_failed_is_tried_again_by_a_key() {
    // its snapshot is some seconds in coming: the start can be cut in the middle
    let a = Server::start("redis-7.0", &["--repl-diskless-sync-delay", "3"]);
    let b = Server::start("redis-7.0", &[]);
    let line = Proxy::to(b.port);
    set(&mut a.client(), "before", "1");
    let home = Home::new();
    let file = home.0.path().join("job.toml");
    let text =
        format!("name = \"orders\"\n[source]\naddress = {:?}\n[target]\naddress = {:?}\n", a.addr(), line.addr());
    std::fs::write(&file, text).expect("a job file");
    let mut start = std::process::Command::new(env!("CARGO_BIN_EXE_duplex"));
    let starting = start.arg("start").arg(&file).env("DUPLEX_HOME", home.0.path()).stderr(Stdio::null()).spawn();
    let mut starting = starting.expect("duplex start");
    support::wait_for("the first control key", secs(30), || {
        match a.client().call(&["KEYS", "duplex:*"]).items().is_empty() {
            true => Err("none".into()),
            false => Ok(()),
        }
    });
    line.refuse(true);
    line.cut();
    assert_eq!(starting.wait().expect("duplex start").code(), Some(1), "the start was to fail");

    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["orders", "✖ failed", "p start again"]);
    c.type_("p");
    c.shows(&["Start orders again?", "precheck runs again"]);
    c.type_("<ret>");
    c.shows(&["orders was not started", "✖ Reachable"]);
    // mended outside, checked again, and back to the job
    line.refuse(false);
    c.type_("a");
    c.shows(&["Precheck passed"]);
    c.type_("<pgdn>");
    c.shows(&["p starts the job again"]);
    c.type_("p");
    c.shows(&["Start orders again?"]);
    c.type_("<ret>");
    c.shows(&["synchronizing both ways"]);
    set(&mut b.client(), "from-b", "2");
    support::assert_equal_within(&a, &b, secs(30));
    c.type_("q");
    assert_eq!(c.ends(), 0);
}

#[test]
fn the_mouse_works_where_it_was_asked_for() {
    let home = Home::new();
    let mut c = Console::open(&home.0, &["--lang", "en", "--mouse"], &[]);
    c.click("Configure a link");
    c.shows(&["step 1 of 4"]);
    c.click("any name will do");
    c.type_("<ctrl-u>by-mouse");
    c.click("Authorize and continue");
    c.shows(&["an address is needed"]);
    c.click("leave");
    c.shows(&["No sync job yet"]);
    c.click("? help");
    c.shows(&["next theme"]);
    c.type_("<esc>");
    c.until("no help", |text| !text.contains("next theme"));
    c.type_("M");
    c.shows(&["Mouse off"]);
    let off =
        |c: &Console| c.screen.lock().expect("screen").screen().mouse_protocol_mode() == vt100::MouseProtocolMode::None;
    c.until("a terminal that keeps its mouse", |_| off(&c));
    c.type_("q");
    assert_eq!(c.ends(), 0);
    c.is_sane();
}

#[test]
fn the_demo_shows_the_console_and_leaves_nothing() {
    let home = tempfile::tempdir().expect("a home");
    let tmp = tempfile::tempdir().expect("a place for the demo");
    let program = support::versions::home(support::versions::Slot::NewestRedis.server()).join("bin/redis-server");
    // A terminal may name a locale that the machine does not have, and such servers do not start in it.
    let env = [
        ("DUPLEX_REDIS_SERVER", program.to_str().expect("a path")),
        ("TMPDIR", tmp.path().to_str().expect("a path")),
        ("LC_ALL", "xx_XX.UTF-8"),
    ];
    let mut c = Console::open(&home, &["demo", "--keys", "500", "--rate", "100", "--lang", "en"], &env);
    c.shows(&["synchronizing both ways"]);
    let folder = std::fs::read_dir(&tmp).expect("the folder").next().expect("the demo's").expect("entry").path();
    let ports: Vec<u16> = ["source", "target"]
        .map(|side| {
            let log = std::fs::read_to_string(folder.join(side).join("log")).expect("a log");
            let port = log.split("port=").nth(1).and_then(|rest| rest.split([',', '.']).next()).expect("a port");
            port.trim().parse().expect("a number")
        })
        .into();
    // keys that both sides write at the same time are settled while one looks
    c.type_("k");
    c.shows(&["Again and again", "contested:"]);
    c.type_("q");
    assert_eq!(c.ends(), 0);
    c.is_sane();
    c.shows(&["the demo has ended"]);
    assert!(!c.text().contains("goes on"), "{}", c.text());
    assert!(!folder.exists());
    for port in ports {
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the server on {port} still runs");
    }
}

#[test]
fn keys_are_answered_at_once_while_links_run_at_full_load() {
    let home = tempfile::tempdir().expect("a home");
    let program = support::versions::home("redis-7.0").join("bin/redis-server");
    let mut c = Console::open(
        &home,
        &["demo", "--keys", "2000", "--rate", "3000", "--lang", "en"],
        &[("DUPLEX_REDIS_SERVER", program.to_str().expect("a path"))],
    );
    c.until("running links", |text| text.contains("synchronizing") || text.contains("lagging"));
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..20 {
        for (key, open) in [("?", true), ("?", false)] {
            let start = Instant::now();
            c.type_(key);
            c.until("answered key", |text| text.contains("next theme") == open);
            took.push(start.elapsed());
        }
    }
    took.sort();
    let [median, most, late] = [50, 75, 95].map(|percent| took[took.len() * percent / 100]);
    println!("keystroke to frame: median {median:?}, 75 % within {most:?}, 95 % within {late:?}");
    // this machine runs the servers, the engine, its debug build and other tests at the same time
    assert!(median < Duration::from_millis(30), "median {median:?}; all: {took:?}");
    assert!(most < Duration::from_millis(50), "75 % within {most:?}; all: {took:?}");
    assert!(late < Duration::from_millis(300), "95 % within {late:?}; all: {took:?}");
    c.type_("q");
    assert_eq!(c.ends(), 0);
}
