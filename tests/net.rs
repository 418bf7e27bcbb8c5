//! Dialling real servers: TLS, accounts, sentinels, clusters, and what each failure is called.

#[path = "support/replica_support.rs"]
mod support;

#[path = "support/authority.rs"]
mod authority;

use redis_duplex::engine::net::{Dialer, NetError, ShardAddress};
use redis_duplex::engine::replica::{ReplicaState, Start};
use redis_duplex::model::job::Tls;
use redis_duplex::model::{Instance, Topology};

use authority::Authority;
use support::{Setup, TestServer, Watched, free_port, until, versions};

/// A server that speaks TLS on a port of its own, with `name`'s certificate. Clients need one if `mutual`.
async fn tls_server(authority: &Authority, name: &str, mutual: bool) -> (TestServer, u16) {
    let port = free_port();
    let (cert, key, ca) =
        (authority.path(&format!("{name}.pem")), authority.path(&format!("{name}.key")), authority.path("ca.pem"));
    let tls_port = port.to_string();
    let args = [
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        if mutual { "yes" } else { "no" },
    ];
    (TestServer::start("redis-7.0", &args).await, port)
}

fn dialer(port: u16, tls: Option<Tls>) -> Dialer {
    let instance = Instance { addresses: vec![format!("127.0.0.1:{port}")], tls, ..Instance::default() };
    Dialer::new(&instance, "duplex-test")
}

async fn failure(dialer: &Dialer) -> NetError {
    let address = dialer.instance().addresses[0].clone();
    match dialer.info(&address).await {
        Ok(_) => panic!("{address} answered"),
        Err(e) => e,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_works_with_an_own_authority_and_each_fault_has_its_name() {
    let authority = Authority::new();
    authority.sign("good", "redis.test", "2");
    authority.sign("client", "client.test", "2");
    let (server, port) = tls_server(&authority, "good", false).await;
    let ca = Some(authority.path("ca.pem"));
    let name = Some("redis.test".to_owned());
    let trusted = Tls { ca_file: ca.clone(), server_name: name.clone(), ..Tls::default() };

    // It works, for questions and for the stream.
    let good = dialer(port, Some(trusted.clone()));
    assert!(good.info(&format!("127.0.0.1:{port}")).await.unwrap().is_master());
    server.fill(500, 2_000).await;
    let replica = Watched::start(good, Start::Full { keep_snapshot: true });
    replica.state("streams", |s| *s == ReplicaState::Streaming).await;
    server.write(10).await;
    support::assert_whole_rdb(&replica.caught_up(&server).await.snapshot);

    // Another name than the certificate's.
    let e = failure(&dialer(port, Some(Tls { server_name: None, ..trusted.clone() }))).await;
    assert!(matches!(&e, NetError::TlsName { presented, .. } if presented.contains("redis.test")), "{e:?}");
    // Another authority.
    let other = Authority::new();
    let e = failure(&dialer(port, Some(Tls { ca_file: Some(other.path("ca.pem")), ..trusted.clone() }))).await;
    assert!(matches!(e, NetError::TlsUnknownAuthority { .. } | NetError::Tls { .. }), "{e:?}");
    let e = failure(&dialer(port, Some(Tls { ca_file: None, ..trusted.clone() }))).await;
    assert!(matches!(e, NetError::TlsUnknownAuthority { .. }), "{e:?}");
    // A file that is no certificate.
    let e = failure(&dialer(port, Some(Tls { ca_file: Some(authority.path("ext")), ..trusted.clone() }))).await;
    assert!(matches!(e, NetError::TlsFile { .. }), "{e:?}");
    // Plain text on a TLS port.
    let e = failure(&dialer(port, None)).await;
    assert!(matches!(e, NetError::Closed { .. } | NetError::NotRedis { .. }), "{e:?}");
    // A server that wants a certificate of ours.
    let (_mutual, port) = tls_server(&authority, "good", true).await;
    let e = failure(&dialer(port, Some(trusted.clone()))).await;
    assert!(matches!(e, NetError::TlsClientCertificate { .. }), "{e:?}");
    let ours = Tls {
        cert_file: Some(authority.path("client.pem")),
        key_file: Some(authority.path("client.key")),
        ..trusted.clone()
    };
    assert!(dialer(port, Some(ours)).info(&format!("127.0.0.1:{port}")).await.unwrap().is_master());
    // One that ended before it began.
    authority.sign("old", "redis.test", "-1");
    let (_old, port) = tls_server(&authority, "old", false).await;
    let e = failure(&dialer(port, Some(trusted))).await;
    assert!(matches!(e, NetError::TlsExpired { .. }), "{e:?}");
}

#[tokio::test]
async fn accounts_work_on_every_version_and_their_faults_have_names() {
    for version in &versions() {
        let server = TestServer::start(version, &["--requirepass", "pa:ss"]).await;
        let address = server.address();
        // A user is named, and the server may have none: 5.0 knows the password alone.
        for account in ["default:pa:ss", ":pa:ss"] {
            let dialer = Dialer::new(&server.instance_with(account), "duplex job 1");
            let mut control = dialer.control(&address).await.unwrap();
            let name: String = control.ask(redis::cmd("CLIENT").arg("GETNAME")).await.unwrap();
            assert_eq!(name, "duplex-job-1", "{version}");
        }
        let e = failure(&Dialer::new(&server.instance_with("default:x"), "d")).await;
        assert!(matches!(e, NetError::WrongPassword { .. }), "{version}: {e:?}");
        let e = failure(&server.dialer()).await;
        assert!(matches!(e, NetError::PasswordNeeded { .. }), "{version}: {e:?}");
        let open = TestServer::start(version, &[]).await;
        let e = failure(&Dialer::new(&open.instance_with("secret"), "d")).await;
        assert!(matches!(e, NetError::NoPasswordSet { .. }), "{version}: {e:?}");
    }
}

#[tokio::test]
async fn refusals_have_names() {
    // A name that does not exist (RFC 6761), a closed port.
    let instance = Instance { addresses: vec!["nowhere.invalid:6379".into()], ..Instance::default() };
    let e = failure(&Dialer::new(&instance, "d")).await;
    assert!(matches!(e, NetError::Dns { .. }), "{e:?}");
    let e = failure(&dialer(free_port(), None)).await;
    assert!(matches!(e, NetError::Refused { .. }) && !e.needs_a_person(), "{e:?}");
    // A server that is full.
    let server = TestServer::start("redis-7.0", &["--maxclients", "1"]).await;
    let _only = until("the first client", async || server.dialer().control(&server.address()).await).await;
    let e = failure(&server.dialer()).await;
    assert!(matches!(e, NetError::TooManyClients { .. }), "{e:?}");
    // A missing right names the command.
    let server = TestServer::start("redis-7.0", &[]).await;
    let mut control = server.control().await;
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg("bob").arg("on").arg(">pw").arg("+@all").arg("-info");
    control.ask::<()>(&acl).await.unwrap();
    let e = failure(&Dialer::new(&server.instance_with("bob:pw"), "d")).await;
    assert!(matches!(&e, NetError::NoPermission { doing, .. } if doing == "INFO"), "{e:?}");
}

fn one(server: &TestServer) -> Vec<ShardAddress> {
    vec![ShardAddress { address: server.address(), node_id: None, slots: vec![] }]
}

#[tokio::test]
async fn a_standalone_is_its_first_master_that_answers() {
    let master = TestServer::start("redis-7.0", &[]).await;
    let replica = TestServer::start("redis-7.0", &["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let addresses = vec![format!("127.0.0.1:{}", free_port()), replica.address(), master.address()];
    let instance = Instance { addresses, ..Instance::default() };
    assert_eq!(Dialer::new(&instance, "d").masters().await.unwrap(), one(&master));
    let alone = Dialer::new(&replica.instance(), "d");
    assert_eq!(alone.masters().await.unwrap(), one(&replica), "somebody may want to read from a replica");
    let none = Dialer::new(&Instance { addresses: vec![], ..Instance::default() }, "d");
    assert_eq!(none.masters().await, Err(NetError::NoAddress));
}

#[tokio::test]
async fn a_cluster_is_its_masters_with_their_slots() {
    for version in ["redis-5.0", "redis-8.6", "valkey-9.1"] {
        let server = TestServer::start(version, &["--cluster-enabled", "yes"]).await;
        let mut control = server.control().await;
        let e = Dialer::new(&server.instance(), "d").masters().await.unwrap_err();
        assert!(e.to_string().contains("no slot has an owner"), "{version}: {e}");
        let mut add = redis::cmd("CLUSTER");
        add.arg("ADDSLOTS");
        for slot in (0..=100).chain(16_383..=16_383) {
            add.arg(slot);
        }
        control.ask::<()>(&add).await.unwrap();
        // The topology need not be told.
        for topology in [Topology::Auto, Topology::Cluster] {
            let instance = Instance { topology, ..server.instance() };
            let shards = Dialer::new(&instance, "d").masters().await.unwrap();
            let [shard] = &shards[..] else { panic!("{version}: {shards:?}") };
            assert_eq!(
                (shard.address.clone(), &shard.slots[..]),
                (server.address(), &[(0, 100), (16_383, 16_383)][..])
            );
            assert_eq!(shard.node_id.as_ref().map(String::len), Some(40), "{version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_are_asked_and_a_failover_is_followed() {
    // Given a master, its replica, a sentinel, and us.
    let version = "redis-7.0";
    let master = TestServer::start(version, &[]).await;
    let heir = TestServer::start(version, &["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    until("the heir is attached", async || {
        match master.control().await.info().await.unwrap().field("connected_slaves") {
            Some("1") => Ok(()),
            other => Err(other.map(str::to_owned)),
        }
    })
    .await;
    let sentinel = TestServer::start_sentinel(version, &master).await;
    let instance = Instance {
        addresses: vec![format!("127.0.0.1:{}", free_port()), sentinel.address()],
        topology: Topology::Sentinel,
        master_name: Some("main".into()),
        ..Instance::default()
    };
    let dialer = Dialer::new(&instance, "duplex-test");
    assert_eq!(dialer.masters().await.unwrap(), one(&master));
    let unknown = Dialer::new(&Instance { master_name: Some("other".into()), ..instance.clone() }, "d");
    let e = unknown.masters().await.unwrap_err();
    assert!(e.to_string().contains("no sentinel knows the master \"other\""), "{e}");
    let setup = Setup { follow_master: true, ..Setup::default() };
    let replica = Watched::start_at(dialer.clone(), &master.address(), Start::Current, setup);
    replica.state("streams", |s| *s == ReplicaState::Streaming).await;
    master.write(10).await;
    replica.caught_up(&master).await;
    until("the heir has it all", async || {
        let (a, b) = (master.offset().await, heir.offset().await);
        if a <= b { Ok(()) } else { Err((a, b)) }
    })
    .await;
    // The sentinel must know of the heir before it can choose it.
    let mut control = Dialer::new(&sentinel.instance(), "d").control(&sentinel.address()).await.unwrap();
    until("the sentinel knows the heir", async || {
        let known: redis::Value = control.ask(redis::cmd("SENTINEL").arg("SLAVES").arg("main")).await.unwrap();
        let known = format!("{known:?}");
        if known.contains(&heir.address()) { Ok(()) } else { Err(known) }
    })
    .await;
    // When the master dies. (While it lives, a planned failover may leave us ahead of the heir by a PING.)
    drop(master);
    until("the heir is the master", async || match dialer.masters().await {
        Ok(shards) if shards == one(&heir) => Ok(()),
        other => Err(other),
    })
    .await;
    heir.write(10).await;
    // Then we read on from the new one.
    let got = replica.caught_up(&heir).await;
    assert_eq!(String::from_utf8_lossy(&got.stream).matches("$7\r\ncounter\r\n").count(), 20);
    assert_eq!(replica.handle.address(), heir.address());
}
