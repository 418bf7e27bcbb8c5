//! Jobs over TLS: own authorities, names, client certificates, renewal under a running job; and each fault in words that
//! let an operator mend it.

mod support;

#[path = "support/authority.rs"]
mod authority;

use authority::Authority;
use support::{
    load::{Tally, assert_tally, fill},
    server::free_port,
    versions::Slot,
    *,
};

/// A server with a TLS port beside its plain one, which is for the test itself.
struct Secure {
    server: Server,
    port: u16,
}

impl Secure {
    fn start(name: &str, authority: &Authority, certificate: &str, mutual: bool) -> Secure {
        Secure::start_with(name, authority, certificate, mutual, &[])
    }

    fn start_with(name: &str, authority: &Authority, certificate: &str, mutual: bool, more: &[&str]) -> Secure {
        let port = free_port();
        let file = |ending: &str| authority.path(&format!("{certificate}.{ending}"));
        let (tls_port, cert, key, ca) = (port.to_string(), file("pem"), file("key"), authority.path("ca.pem"));
        let clients = if mutual { "yes" } else { "no" };
        let tls =
            ["--tls-port", &tls_port, "--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let server = Server::start(name, &[&tls[..], &["--tls-auth-clients", clients], more].concat());
        Secure { server, port }
    }

    fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.sign("good", "redis.test", "2");
    authority.sign("client", "client.test", "2");
    authority
}

fn line(key: &str, value: &str) -> String {
    format!("{key} = {value:?}")
}

fn both_ways(slot: Slot) {
    let authority = authority();
    let a = Secure::start(slot.server(), &authority, "good", false);
    let b = Secure::start(slot.server(), &authority, "good", true);
    fill(&a.server, 1_000, true);
    let job = JobSpec::between(format!("rediss://{}", a.addr()), b.addr())
        .source_line(&line("ca_file", &authority.path("ca.pem")))
        .source_line("tls_server_name = \"redis.test\"")
        .target_line("tls = true")
        .target_line(&line("ca_file", &authority.path("ca.pem")))
        .target_line(&line("cert_file", &authority.path("client.pem")))
        .target_line(&line("key_file", &authority.path("client.key")))
        .target_line("tls_server_name = \"redis.test\"");
    let mut duplex = Duplex::synced(&job);
    let mut loads = [Tally::start(&a.server, "a", 1_000), Tally::start(&b.server, "b", 1_000)];
    wait_for("some load", secs(30), || if loads[0].sent() > 1_000 { Ok(()) } else { Err(loads[0].sent().to_string()) });
    duplex.crash();
    duplex.revive();
    let steps = loads.each_mut().map(|l| l.stop());
    duplex.wait_state("synchronizing", secs(60));
    assert_equal_within(&a.server, &b.server, secs(60));
    for server in [&a.server, &b.server] {
        assert_tally(server, "a", steps[0]);
        assert_tally(server, "b", steps[1]);
    }
    duplex.run(&["verify", &duplex.name]).code(0);
}

#[test]
fn a_job_goes_over_tls_both_ways_on_the_usual() {
    both_ways(Slot::Usual);
}

#[test]
fn a_job_goes_over_tls_both_ways_on_the_newest_redis() {
    both_ways(Slot::NewestRedis);
}

#[test]
fn a_job_goes_over_tls_both_ways_on_the_newest_valkey() {
    both_ways(Slot::NewestValkey);
}

/// Nodes that talk to each other over TLS tell of each other by those ports; the account changes while the job runs.
#[test]
fn a_cluster_goes_over_tls_and_its_password_changes() {
    let (authority, name) = (authority(), Slot::Usual.server());
    let a = Server::start(name, &[]);
    let buses = [free_port(), free_port()];
    let nodes = buses.map(|bus| {
        let bus = bus.to_string();
        let more = [
            "--cluster-enabled",
            "yes",
            "--tls-cluster",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "5000",
        ];
        Secure::start_with(name, &authority, "good", false, &more)
    });
    for (n, (node, slots)) in nodes.iter().zip(["0 8000", "8001 16383"]).enumerate() {
        let mut client = node.server.client();
        client.run(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
        client.run(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
        client.run("ACL SETUSER app on >first ~* &* +@all");
    }
    nodes[0].server.client().run(&format!("CLUSTER MEET 127.0.0.1 {} {}", nodes[1].port, buses[1]));
    for node in &nodes {
        wait_for("the cluster is whole", secs(60), || {
            let info = node.server.client().run("CLUSTER INFO").text();
            let whole = info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384");
            if whole { Ok(()) } else { Err(info) }
        });
    }
    let dir = tempfile::tempdir().expect("a folder");
    let account = dir.path().join("account");
    let write = |password: &str| std::fs::write(&account, format!("app:{password}\n")).expect("write");
    write("first");
    let job = JobSpec::between(a.addr(), format!("rediss://{}", nodes[0].addr()))
        .target_line(&line("ca_file", &authority.path("ca.pem")))
        .target_line("tls_server_name = \"redis.test\"")
        .target_line(&line("account_file", &account.display().to_string()));
    let duplex = Duplex::synced(&job);
    let held = |n: u32| -> i64 {
        // One client: WAIT is about its own writes.
        let mut client = a.client();
        for i in 0..200 {
            client.run(&format!("SET key:{n}:{i} {i}"));
        }
        client.run("WAIT 1 20000").int()
    };
    assert_eq!(held(1), 1);
    for node in &nodes {
        node.server.client().run("ACL SETUSER app >second");
    }
    write("second");
    for node in &nodes {
        let mut client = node.server.client();
        client.run("ACL SETUSER app <first");
        client.run("CLIENT KILL USER app");
    }
    duplex.wait_state("synchronizing", secs(60));
    assert_eq!(held(2), 1);
    let keys: i64 = nodes.iter().map(|n| n.server.client().run("DBSIZE").int()).sum();
    // Each slot has a control key beside them.
    assert_eq!(keys, 400 + 16_384);
    let shards = duplex.status().link("reverse").expect("a link")["shards"].clone();
    let addresses: Vec<&str> =
        shards.as_array().expect("shards").iter().filter_map(|s| s["address"].as_str()).collect();
    assert_eq!(addresses, [nodes[0].addr(), nodes[1].addr()]);
}

#[test]
fn each_fault_is_told_with_what_mends_it() {
    let (ours, others) = (authority(), authority());
    ours.sign("old", "redis.test", "-1");
    let name = Slot::Usual.server();
    let (plain, other) = (Server::start(name, &[]), Server::start(name, &[]));
    let good = Secure::start(name, &ours, "good", false);
    let mutual = Secure::start(name, &ours, "good", true);
    let old = Secure::start(name, &ours, "old", false);
    let (ca, other_ca) = (line("ca_file", &ours.path("ca.pem")), line("ca_file", &others.path("ca.pem")));
    let named = "tls_server_name = \"redis.test\"".to_owned();
    let of = |authority: &Authority| {
        [line("cert_file", &authority.path("client.pem")), line("key_file", &authority.path("client.key"))].join("\n")
    };
    let not_its_key =
        [line("cert_file", &ours.path("client.pem")), line("key_file", &ours.path("good.key"))].join("\n");
    let no_file = line("ca_file", &ours.path("missing.pem"));
    let cases: Vec<(&str, String, Vec<String>, Vec<&str>)> = vec![
        (
            "another name",
            good.addr(),
            vec![ca.clone(), "tls_server_name = \"cache.test\"".into()],
            vec!["is for redis.test", "not for \"cache.test\"", "set tls_server_name"],
        ),
        (
            "no name at all",
            good.addr(),
            vec![ca.clone()],
            vec!["is for redis.test", "not for \"127.0.0.1\"", "tls_server_name"],
        ),
        ("expired", old.addr(), vec![ca.clone(), named.clone()], vec!["has expired", "renew it"]),
        (
            "another authority",
            good.addr(),
            vec![other_ca, named.clone()],
            vec!["signed by an authority that we don't know", "set ca_file"],
        ),
        (
            "the host's authorities",
            good.addr(),
            vec![named.clone()],
            vec!["signed by an authority that we don't know", "set ca_file"],
        ),
        (
            "no client certificate",
            mutual.addr(),
            vec![ca.clone(), named.clone()],
            vec!["asks for a client certificate", "set cert_file and key_file"],
        ),
        (
            "a client certificate of another authority",
            mutual.addr(),
            vec![ca.clone(), named.clone(), of(&others)],
            vec!["client certificate", "signed by a CA that it trusts"],
        ),
        ("no such file", good.addr(), vec![no_file, named.clone()], vec!["missing.pem", "can't be used"]),
        (
            "another's key",
            mutual.addr(),
            vec![ca.clone(), named.clone(), not_its_key],
            vec!["client.pem", "can't be used", "key"],
        ),
        ("a plain port", other.addr(), vec![ca, named], vec!["did not agree on TLS", "leave tls out"]),
    ];
    for (what, address, lines, words) in cases {
        let mut job = JobSpec::between(plain.addr(), address).target_line("tls = true");
        for l in &lines {
            job = job.target_line(l);
        }
        let duplex = Duplex::new(&job);
        let ended = duplex.run(&["precheck", duplex.job_file.to_str().expect("a path")]);
        eprintln!("--- {what}\n{}", ended.text().lines().take(9).collect::<Vec<_>>().join("\n"));
        ended.code(3).says(&words);
    }
    // Plain text towards a TLS port.
    let duplex = Duplex::new(&JobSpec::between(plain.addr(), good.addr()));
    let file = duplex.job_file.to_str().expect("a path");
    duplex.run(&["precheck", file]).code(3).says(&["TLS", "`tls = true`"]);
}

#[test]
fn a_renewed_certificate_is_taken_up_and_a_wrong_one_is_told_under_a_running_job() {
    let (ours, next) = (authority(), authority());
    let name = Slot::Usual.server();
    let (a, b) = (Server::start(name, &[]), Secure::start(name, &ours, "good", false));
    let trusted = ours.dir.path().join("trusted.pem");
    std::fs::copy(ours.path("ca.pem"), &trusted).expect("copy");
    let job = JobSpec::between(a.addr(), b.addr())
        .target_line("tls = true")
        .target_line(&line("ca_file", trusted.to_str().expect("a path")))
        .target_line("tls_server_name = \"redis.test\"");
    let duplex = Duplex::synced(&job);
    let mut load = Tally::start(&a, "a", 500);
    // When the server gets a certificate of another authority, and the connections end.
    let mut client = b.server.client();
    let (cert, key) = (next.path("good.pem"), next.path("good.key"));
    let set = ["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key, "tls-ca-cert-file", &next.path("ca.pem")];
    assert!(!client.call(&set).is_error());
    for line in client.run("CLIENT LIST").text().lines().filter(|l| l.contains("name=duplex:")) {
        let id = line.split(' ').find_map(|f| f.strip_prefix("id=")).expect("an id");
        client.call(&["CLIENT", "KILL", "ID", id]);
    }
    let told = duplex.wait_status("the fault is told", secs(40), |s| {
        s.0.to_string().contains("signed by an authority that we don't know")
    });
    assert_ne!(told.state(), "synchronizing");
    // Then the new authority's certificate in the file is enough.
    let both = [std::fs::read(ours.path("ca.pem")), std::fs::read(next.path("ca.pem"))].map(|f| f.expect("read"));
    std::fs::write(&trusted, both.concat()).expect("write");
    duplex.wait_state("synchronizing", secs(60));
    let steps = load.stop();
    assert_equal_within(&a, &b.server, secs(60));
    assert_tally(&b.server, "a", steps);
}
