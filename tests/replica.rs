//! The replica against real servers: every kind of start, every kind of cut, byte for byte.

#[path = "support/replica_support.rs"]
mod support;

use redis_duplex::engine::replica::{ReplicaState, Start};
use redis_duplex::engine::spool::Item;
use redis_duplex::model::Offset;
use std::time::{Duration, Instant};
use support::{PATIENCE, Setup, TestServer, Watched, assert_whole_rdb, collect, replid, until, versions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const FULL: Start = Start::Full { keep_snapshot: true };

fn is_streaming(state: &ReplicaState) -> bool {
    *state == ReplicaState::Streaming
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_comes_whole_with_and_without_a_length() {
    for version in &versions() {
        for diskless in ["no", "yes"] {
            // Given a server with data.
            let server = TestServer::start(version, &["--repl-diskless-sync", diskless]).await;
            server.fill(2_000, 300).await;
            // When a replica attaches, and writes go on.
            let replica = Watched::start(server.dialer(), FULL);
            replica.state("streams", is_streaming).await;
            server.write(100).await;
            let got = replica.caught_up(&server).await;
            // Then snapshot and stream are whole.
            assert_whole_rdb(&got.snapshot);
            assert!(got.snapshot.len() > 600_000, "{version}");
            let [Item::SnapshotBegin { offset, total, .. }, Item::SnapshotEnd] = got.markers[..] else {
                panic!("{version}: {:?}", got.markers)
            };
            assert_eq!(got.begin, Some(offset), "{version}: the stream begins where the snapshot ends");
            assert_eq!(total.is_some(), diskless == "no", "{version}");
            assert!(total.is_none_or(|t| t == got.snapshot.len() as u64));
            assert!(got.stream.ends_with(b"$2\r\n99\r\n"), "{version}");
            let counters = replica.handle.counters();
            assert!(counters.bytes > 600_000 && counters.full_resyncs == 1 && counters.silent_for.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_stream_goes_on_byte_for_byte() {
    for version in &versions() {
        // Given two replicas of one server.
        let server = TestServer::start(version, &["--repl-diskless-sync", "yes"]).await;
        let cut = Watched::start(server.dialer(), FULL);
        cut.state("streams", is_streaming).await;
        // When they are cut off again and again while writes go on.
        for round in 1..=4 {
            server.write(50).await;
            server.kill_replicas().await;
            server.write(50).await;
            cut.caught_up(&server).await;
            assert_eq!(cut.handle.counters().reconnects, round, "{version}");
        }
        // Then it has each command once, in order, and the server took no second snapshot.
        let got = cut.caught_up(&server).await;
        let text = String::from_utf8_lossy(&got.stream);
        let values: Vec<u32> =
            text.split("$7\r\ncounter\r\n").skip(1).map(|rest| rest.lines().nth(1).unwrap().parse().unwrap()).collect();
        let expected: Vec<u32> = (0..8).flat_map(|_| 0..50).collect();
        assert_eq!(values, expected, "{version}");
        assert_eq!(cut.handle.received(), got.end().unwrap());
        assert_eq!(server.control().await.info().await.unwrap().field("sync_full"), Some("1"), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_attaches_where_the_master_is() {
    for version in &versions() {
        // Given a server that never had a replica: it has no backlog, and its snapshot is thrown away.
        let server = TestServer::start(version, &[]).await;
        server.fill(100, 100).await;
        let first = Watched::start(server.dialer(), Start::Current);
        first.state("streams", is_streaming).await;
        server.write(10).await;
        let got = first.caught_up(&server).await;
        assert!(matches!(got.markers[..], [Item::NewReplid { at, .. }] if Some(at) == got.begin), "{:?}", got.markers);
        assert!(got.snapshot.is_empty());
        assert!(String::from_utf8_lossy(&got.stream).matches("counter").count() == 10, "{version}");
        // Now there is a backlog: the next attaches without a snapshot, at the present offset.
        let before = server.offset().await;
        let second = Watched::start(server.dialer(), Start::Current);
        let (_, at) = tokio::time::timeout(PATIENCE, second.handle.attached()).await.unwrap().unwrap();
        assert!(at >= before, "{version}: {at} is before {before}");
        server.write(1).await;
        assert!(second.caught_up(&server).await.snapshot.is_empty());
        assert_eq!(second.handle.counters().full_resyncs, 0, "{version}");
    }
}

#[tokio::test]
async fn a_lost_position_is_told_and_not_followed() {
    for version in &versions() {
        let server = TestServer::start(version, &[]).await;
        let start = Start::Resume { replid: replid('a'), offset: Offset(1_000) };
        let replica = Watched::start(server.dialer(), start);
        let state = replica.state("is lost", ReplicaState::is_final).await;
        let ReplicaState::PositionLost { asked, offered } = state else { panic!("{state:?}") };
        assert_eq!(asked, (replid('a'), Offset(1_000)));
        assert_ne!(offered.0, asked.0);
        assert!(tokio::time::timeout(PATIENCE, replica.handle.attached()).await.unwrap().is_err());
        until("the spool is told", async || match &replica.now().markers[..] {
            [Item::Lost { .. }] => Ok(()),
            other => Err(other.to_vec()),
        })
        .await;
        // It may be allowed.
        let setup = Setup { allow_full: true, ..Setup::default() };
        let replica = Watched::start_with(server.dialer(), start, setup);
        replica.state("streams", is_streaming).await;
        server.write(1).await;
        let got = replica.caught_up(&server).await;
        assert!(
            matches!(got.markers[..], [Item::Lost { .. }, Item::SnapshotBegin { .. }, Item::SnapshotEnd]),
            "{:?}",
            got.markers
        );
        assert_whole_rdb(&got.snapshot);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_goes_on_with_a_new_name() {
    for version in &versions() {
        // Given a master, a replica of it, and us at the master.
        let master = TestServer::start(version, &[]).await;
        let heir = TestServer::start(version, &["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
        let ours = Watched::start(master.dialer(), FULL);
        ours.state("streams", is_streaming).await;
        master.write(20).await;
        let had = ours.caught_up(&master).await;
        let old = ours.handle.replid().unwrap();
        until("the heir is up to date", async || {
            let at = heir.offset().await;
            if Some(at) >= had.end() { Ok(()) } else { Err(at) }
        })
        .await;
        // When the replica takes over.
        drop(master);
        let mut control = heir.control().await;
        control.ask::<()>(redis::cmd("REPLICAOF").arg("NO").arg("ONE")).await.unwrap();
        let resumed = Watched::start(heir.dialer(), Start::Resume { replid: old, offset: ours.handle.received() });
        resumed.state("streams", is_streaming).await;
        heir.write(5).await;
        // Then the stream goes on where it was, under another name.
        let got = resumed.caught_up(&heir).await;
        let [Item::NewReplid { replid, at }] = got.markers[..] else { panic!("{version}: {:?}", got.markers) };
        assert_ne!(replid, old, "{version}");
        assert_eq!(Some(at), got.begin, "{version}");
        assert_eq!(resumed.handle.replid(), Some(replid));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_hears_the_applied_offset_and_soon() {
    for version in &versions() {
        let server = TestServer::start(version, &["--repl-diskless-sync", "yes"]).await;
        let replica = Watched::start(server.dialer(), FULL);
        replica.state("streams", is_streaming).await;
        // Given a write that is received but not applied.
        let mut control = server.control().await;
        control.ask::<()>(redis::cmd("SET").arg("a").arg("1")).await.unwrap();
        replica.caught_up(&server).await;
        let waited: i64 = control.ask(redis::cmd("WAIT").arg(1).arg(300)).await.unwrap();
        assert_eq!(waited, 0, "{version}: WAIT must not see what is not applied");
        // When it is applied, WAIT ends at once, not at the next full second.
        let mut slowest = Duration::ZERO;
        for i in 0..5 {
            control.ask::<()>(redis::cmd("SET").arg("a").arg(i)).await.unwrap();
            let began = Instant::now();
            let got = replica.caught_up(&server).await;
            replica.applied.send_replace(got.end().unwrap());
            let waited: i64 = control.ask(redis::cmd("WAIT").arg(1).arg(10_000)).await.unwrap();
            assert_eq!(waited, 1, "{version}");
            slowest = slowest.max(began.elapsed());
        }
        assert!(slowest < Duration::from_millis(700), "{version}: {slowest:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_larger_than_memory_goes_over_the_disk_and_comes_back_equal() {
    for diskless in ["no", "yes"] {
        // Given a spool with 1 MiB of memory that nobody reads.
        let server = TestServer::start("redis-7.0", &["--repl-diskless-sync", diskless]).await;
        server.fill(2_000, 10_000).await;
        let setup = Setup { memory: 1 << 20, ..Setup::default() };
        let (replica, reader) = Watched::start_unread(server.dialer(), FULL, setup);
        // When the snapshot is read, and writes follow.
        replica.state("streams", is_streaming).await;
        server.fill(500, 5_000).await;
        let goal = server.offset().await;
        until("received", async || {
            let at = replica.handle.received();
            if at >= goal { Ok(()) } else { Err((at, goal)) }
        })
        .await;
        let stats = reader.stats();
        assert!(stats.bytes_disk > 20_000_000 && stats.bytes_memory <= 1 << 20, "{stats:?}");
        // Then all of it comes out, and the files go.
        let releaser = reader.releaser();
        tokio::spawn(collect(reader, replica.collected.clone()));
        let got = replica.caught_up(&server).await;
        assert_whole_rdb(&got.snapshot);
        assert!(got.stream.len() > 2_500_000);
        until("the files are gone", async || match releaser.stats().bytes_disk {
            0 => Ok(()),
            left => Err(left),
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_keeps_the_connection_alive_and_loses_nothing() {
    // Given a spool that is soon full, at a server that cuts replicas that are silent for 3 s.
    let server = TestServer::start("redis-7.0", &["--repl-timeout", "3", "--repl-ping-replica-period", "1"]).await;
    let setup = Setup { memory: 300_000, disk: 0, ..Setup::default() };
    let (replica, reader) = Watched::start_unread(server.dialer(), FULL, setup);
    replica.state("streams", is_streaming).await;
    server.fill(1_000, 2_000).await;
    until("full", async || if reader.stats().full { Ok(()) } else { Err(reader.stats()) }).await;
    // When twice that time goes by (the server's clock decides here).
    let mut control = server.control().await;
    let lag = async |control: &mut redis_duplex::engine::net::Control| {
        let info = control.info().await.unwrap();
        (info.field("uptime_in_seconds").unwrap().parse::<u64>().unwrap(), info.field("connected_slaves") == Some("1"))
    };
    let (began, _) = lag(&mut control).await;
    until("7 s on the server's clock", async || {
        let (now, there) = lag(&mut control).await;
        assert!(there, "the replica was cut off after {} s", now - began);
        if now >= began + 7 { Ok(()) } else { Err(now) }
    })
    .await;
    // Then nothing was lost.
    tokio::spawn(collect(reader, replica.collected.clone()));
    replica.caught_up(&server).await;
    assert_eq!(replica.handle.counters().reconnects, 0);
}

#[tokio::test]
async fn a_wrong_password_is_told_with_what_to_do() {
    for version in &versions() {
        let server = TestServer::start(version, &["--requirepass", "secret"]).await;
        let dialer = redis_duplex::engine::net::Dialer::new(&server.instance_with("wrong"), "duplex-test");
        let replica = Watched::start(dialer, FULL);
        let state = replica.state("fails", |s| matches!(s, ReplicaState::Failed { .. })).await;
        let ReplicaState::Failed { why, remedy, .. } = state else { panic!() };
        assert!(why.contains("rejected") && remedy.contains("account"), "{version}: {why} / {remedy}");
        replica.handle.stop().await;
    }
}

#[tokio::test]
async fn a_user_without_the_right_to_psync_is_told_which_right_is_missing() {
    let server = TestServer::start("redis-7.0", &[]).await;
    let mut control = server.control().await;
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg("bob").arg("on").arg(">pw").arg("~*").arg("+@all").arg("-psync");
    control.ask::<()>(&acl).await.unwrap();
    let dialer = redis_duplex::engine::net::Dialer::new(&server.instance_with("bob:pw"), "duplex-test");
    let replica = Watched::start(dialer, FULL);
    let state = replica.state("fails", |s| matches!(s, ReplicaState::Failed { .. })).await;
    let ReplicaState::Failed { why, remedy, .. } = state else { panic!() };
    assert!(why.contains("psync") && remedy.contains("ACL SETUSER"), "{why} / {remedy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_is_found_again() {
    // Given a port where nobody listens.
    let port = support::free_port();
    let instance = redis_duplex::model::Instance { addresses: vec![format!("127.0.0.1:{port}")], ..Default::default() };
    let replica = Watched::start(redis_duplex::engine::net::Dialer::new(&instance, "duplex-test"), FULL);
    let tried_twice = |s: &ReplicaState| matches!(s, ReplicaState::Reconnecting { attempt, why, .. } if *attempt >= 2 && why.contains("refused"));
    replica.state("tries again", tried_twice).await;
    // When a server starts there.
    let server = TestServer::start_on("redis-7.0", port, &[]).await;
    // Then it is read.
    replica.state("streams", is_streaming).await;
    server.write(1).await;
    replica.caught_up(&server).await;
}

/// A listener that does `what` to each connection.
async fn impostor<F: Future<Output = ()> + Send + 'static>(
    what: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> redis_duplex::engine::net::Dialer {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(what(stream));
        }
    });
    let instance = redis_duplex::model::Instance { addresses: vec![address], ..Default::default() };
    redis_duplex::engine::net::Dialer::new(&instance, "duplex-test").with_deadlines(
        redis_duplex::engine::net::Deadlines { connect: Duration::from_secs(2), response: Duration::from_millis(300) },
    )
}

#[tokio::test]
async fn a_listener_that_never_answers_is_left_after_the_deadline() {
    let dialer = impostor(async |mut stream| {
        let mut sink = vec![0; 1024];
        while stream.read(&mut sink).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let replica = Watched::start(dialer, FULL);
    let timed_out = |s: &ReplicaState| matches!(s, ReplicaState::Reconnecting { why, .. } if why.contains("did not answer within 0.3 s"));
    replica.state("times out", timed_out).await;
}

#[tokio::test]
async fn a_web_server_is_told_from_redis() {
    let dialer = impostor(async |mut stream| {
        let mut sink = vec![0; 1024];
        let _ = stream.read(&mut sink).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    let replica = Watched::start(dialer, FULL);
    let state = replica.state("fails", |s| matches!(s, ReplicaState::Failed { .. })).await;
    let ReplicaState::Failed { why, remedy, .. } = state else { panic!() };
    assert!(why.contains("HTTP/1.1 400") && remedy.contains("host and port"), "{why} / {remedy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_cut_is_told_and_taken_again() {
    for diskless in ["no", "yes"] {
        // Given a snapshot that stands still half-way, since nobody reads it.
        let server = TestServer::start("redis-7.0", &["--repl-diskless-sync", diskless]).await;
        server.fill(2_000, 10_000).await;
        let setup = Setup { memory: 1 << 20, disk: 0, ..Setup::default() };
        let (replica, reader) = Watched::start_unread(server.dialer(), FULL, setup);
        until("full", async || if reader.stats().full { Ok(()) } else { Err(reader.stats()) }).await;
        assert!(matches!(*replica.handle.state().borrow(), ReplicaState::Snapshot { .. }));
        // When the server cuts it.
        server.kill_replicas().await;
        tokio::spawn(collect(reader, replica.collected.clone()));
        // Then it is begun anew, and is whole.
        until("streams again", async || match &replica.now().markers[..] {
            [.., Item::SnapshotEnd] => Ok(()),
            other => Err(other.to_vec()),
        })
        .await;
        server.write(1).await;
        let got = replica.caught_up(&server).await;
        assert_whole_rdb(&got.snapshot);
        assert!(
            matches!(
                got.markers[..],
                [Item::SnapshotBegin { .. }, Item::Lost { .. }, Item::SnapshotBegin { .. }, Item::SnapshotEnd]
            ),
            "{:?}",
            got.markers
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_falls_silent_is_left_and_found_again() {
    use nix::sys::signal::{Signal, kill};
    // Given a server whose silence is noticed as early as it can be (12 s).
    let server = TestServer::start("redis-7.0", &["--repl-timeout", "5", "--repl-ping-replica-period", "1"]).await;
    let replica = Watched::start(server.dialer(), FULL);
    replica.state("streams", is_streaming).await;
    // When it is frozen.
    let pid = nix::unistd::Pid::from_raw(server.pid());
    kill(pid, Signal::SIGSTOP).unwrap();
    let silent = |s: &ReplicaState| matches!(s, ReplicaState::Reconnecting { why, .. } if why.contains("did not answer within 12 s"));
    replica.state("is missed", silent).await;
    // Then it is read on when it thaws.
    kill(pid, Signal::SIGCONT).unwrap();
    server.write(3).await;
    let got = replica.caught_up(&server).await;
    assert!(got.stream.ends_with(b"$1\r\n2\r\n"));
    assert_eq!(replica.handle.counters().full_resyncs, 1);
}

/// A proxy that hands the master's bytes on in crumbs of 1 to 30 bytes.
async fn crumbling_proxy(server: &TestServer) -> redis_duplex::engine::net::Dialer {
    let behind = server.address();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((ours, _)) = listener.accept().await {
            let master = tokio::net::TcpStream::connect(&behind).await.unwrap();
            ours.set_nodelay(true).unwrap();
            let ((mut from_us, mut to_us), (mut from_master, mut to_master)) = (ours.into_split(), master.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_us, &mut to_master).await });
            tokio::spawn(async move {
                let mut bytes = vec![0; 4096];
                while let Ok(count @ 1..) = from_master.read(&mut bytes).await {
                    let mut rest = &bytes[..count];
                    while !rest.is_empty() {
                        let (crumb, after) = rest.split_at(fastrand::usize(1..=30).min(rest.len()));
                        if to_us.write_all(crumb).await.is_err() {
                            return;
                        }
                        tokio::task::yield_now().await;
                        rest = after;
                    }
                }
            });
        }
    });
    let instance = redis_duplex::model::Instance { addresses: vec![address], ..Default::default() };
    redis_duplex::engine::net::Dialer::new(&instance, "duplex-test")
}

#[tokio::test]
async fn crumbs_make_the_same_snapshot_and_stream() {
    for diskless in ["no", "yes"] {
        let server = TestServer::start("redis-7.0", &["--repl-diskless-sync", diskless]).await;
        server.fill(20, 100).await;
        for _ in 0..10 {
            let replica = Watched::start(crumbling_proxy(&server).await, FULL);
            replica.state("streams", is_streaming).await;
            server.write(3).await;
            let got = replica.caught_up(&server).await;
            assert_whole_rdb(&got.snapshot);
            assert!(got.stream.ends_with(b"$1\r\n2\r\n"));
            replica.handle.stop().await;
        }
    }
}

#[tokio::test]
async fn a_master_that_waits_before_it_forks_keeps_the_handshake_alive() {
    // It sends a newline each second, before FULLRESYNC and before the payload.
    for version in &versions() {
        let args = ["--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "2"];
        let server = TestServer::start(version, &args).await;
        let dialer = server.dialer().with_deadlines(redis_duplex::engine::net::Deadlines {
            response: Duration::from_millis(1_500),
            ..Default::default()
        });
        let replica = Watched::start(dialer, FULL);
        replica.state("streams", is_streaming).await;
        server.write(1).await;
        assert_whole_rdb(&replica.caught_up(&server).await.snapshot);
        assert_eq!(replica.handle.counters().reconnects, 0, "{version}");
    }
}

#[tokio::test]
async fn valkey_9_gives_fields_that_expire() {
    // Without a version announced, it can't write them down and cuts the sync.
    let server = TestServer::start("valkey-9.1", &[]).await;
    let mut control = server.control().await;
    control.ask::<()>(redis::cmd("HSET").arg("h").arg("f").arg("v")).await.unwrap();
    let mut expire = redis::cmd("HEXPIRE");
    expire.arg("h").arg(1_000).arg("FIELDS").arg(1).arg("f");
    control.ask::<Vec<i64>>(&expire).await.unwrap();
    let replica = Watched::start(server.dialer(), FULL);
    replica.state("streams", is_streaming).await;
    server.write(1).await;
    let got = replica.caught_up(&server).await;
    assert!(got.snapshot.starts_with(b"VALKEY080"), "{:?}", String::from_utf8_lossy(&got.snapshot[..9]));
    assert_whole_rdb(&got.snapshot);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_starts_soon_after_a_snapshot_without_a_length() {
    // The master holds it back until it hears an ACK when it counts us online; by the second it would take one.
    let server = TestServer::start("redis-7.0", &["--repl-diskless-sync", "yes"]).await;
    let mut best = Duration::MAX;
    for _ in 0..6 {
        let began = Instant::now();
        let replica = Watched::start(server.dialer(), FULL);
        replica.state("streams", is_streaming).await;
        server.write(1).await;
        replica.caught_up(&server).await;
        best = best.min(began.elapsed());
        replica.handle.stop().await;
    }
    assert!(best < Duration::from_millis(800), "{best:?}");
}
