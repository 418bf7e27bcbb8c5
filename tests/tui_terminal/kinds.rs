//! The wizard, typed from an empty home until both links synchronize, for each kind of instance: TLS with a client
//! certificate, a cluster, a sentinel group, read replicas.

use crate::{
    authority::Authority,
    console::{Console, Home},
    group::{Group, NAME, in_step},
    support::{
        Server,
        cluster::{Site, assert_sites_equal},
        secs,
        server::free_port,
        wait_for,
    },
};

/// From the second step to both links.
fn to_the_end(c: &mut Console) {
    c.shows(&["SELECTED", "db0"]);
    c.type_("<pgdn>");
    c.shows(&["Both ways"]);
    c.type_("<pgdn>");
    c.shows(&["✔ Precheck passed"]);
    c.type_("W<pgdn>");
    c.shows(&["Start both links"]);
    c.type_("<pgdn>");
    c.shows(&["synchronizing both ways"]);
}

/// Waits for one side's words and for the other's answer: until both are there the focus stays where it is.
fn both_answered(c: &Console, words: &str) {
    c.until(words, |text| text.contains(words) && !text.contains("dialling"));
}

fn job_file(home: &Home) -> String {
    let jobs = home.0.path().join("config/jobs");
    let file = std::fs::read_dir(jobs).expect("jobs").next().expect("a job file").expect("entry").path();
    std::fs::read_to_string(file).expect("the job file")
}

/// A server with a TLS port for those who have a certificate; its plain one is for the test itself.
fn secure(authority: &Authority) -> (Server, String) {
    let port = free_port().to_string();
    let (cert, key, ca) = (authority.path("good.pem"), authority.path("good.key"), authority.path("ca.pem"));
    let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let rest = ["--tls-port", &port, "--tls-auth-clients", "yes", "--requirepass", "s3cret"];
    (Server::start("redis-7.0", &[&files[..], &rest[..]].concat()), format!("127.0.0.1:{port}"))
}

#[test]
fn from_a_server_that_wants_certificates_to_a_cluster() {
    let authority = Authority::new();
    authority.sign("good", "redis.test", "2");
    authority.sign("client", "client.test", "2");
    let (a, address) = secure(&authority);
    let b = Site::many("redis-7.0", 3);
    a.client().run("SET before 1");
    let home = Home::new();
    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["No sync job yet"]);
    c.type_("n");
    c.shows(&["[ sync-"]);
    c.type_(&format!("<tab>{address}<tab><tab><tab>s3cret<tab><right><right>"));
    c.shows(&["on, own CA", "Client cert"]);
    // without its certificate the server refuses it, and says so
    let (ca, cert, key) = (authority.path("ca.pem"), authority.path("client.pem"), authority.path("client.key"));
    c.type_(&format!("<tab>{ca}<tab><tab><tab>redis.test"));
    let cluster = b.cluster();
    let seeds = format!("{}, {}", cluster.nodes[0].addr(), cluster.nodes[1].addr());
    c.type_(&format!("<tab><tab>{seeds}<tab><right><right><right>"));
    c.shows(&["cluster", "Seeds"]);
    c.type_("<pgdn>");
    both_answered(&c, "certificate,");
    // mended: the focus is on the source's account
    c.type_(&format!("<tab><tab><tab>{cert}<tab>{key}<pgdn>"));
    to_the_end(&mut c);
    let text = job_file(&home);
    for words in ["cluster", "client.pem", "client.key", "redis.test"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let a = Site::One(a);
    b.router().run("SET from-b 2");
    assert_sites_equal(&a, &b, secs(30));
    // its shards, each with its state
    c.type_("s");
    c.until("three shards in step", |text| {
        let rows =
            |n: &Server| text.lines().filter(|row| row.contains(&n.addr()) && row.contains("synchronizing")).count();
        cluster.nodes.iter().all(|n| rows(n) == 1)
    });
    c.type_("<esc>q");
    assert_eq!(c.ends(), 0);
}

#[test]
fn from_a_sentinel_group_to_one_that_is_read_from_its_replica() {
    let group = Group::start("redis-7.0", &[], 1);
    let b = Server::start("redis-7.0", &[]);
    let replica = Server::start("redis-7.0", &[]);
    replica.client().run(&format!("REPLICAOF 127.0.0.1 {}", b.port));
    in_step(&b, &replica);
    group.master().client().run("SET before 1");
    let home = Home::new();
    let mut c = Console::open(&home.0, &["--lang", "en"], &[]);
    c.shows(&["No sync job yet"]);
    c.type_("n");
    c.shows(&["[ sync-"]);
    // the kind before "auto" is the last, sentinel; the master's name; read from a replica
    c.type_(&format!("<tab>{}<tab><left><left><tab>nobody<tab><tab><right>", group.sentinels[0].addr()));
    c.shows(&["Sentinels", "a replica"]);
    c.type_(&format!("<tab><tab><tab><tab><tab>{}<tab><right><right>", b.addr()));
    c.shows(&["read/write splitting"]);
    c.type_("<pgdn>");
    // a name that the sentinels don't know is said as such; the focus is on the source's account, below it
    both_answered(&c, "no sentinel");
    c.type_(&format!("<up><up><up><up><ctrl-u>{NAME}<pgdn>"));
    to_the_end(&mut c);
    let text = job_file(&home);
    assert!(text.contains("sentinel") && text.matches("read_from").count() == 2, "{text}");
    b.client().run("SET from-b 2");
    wait_for("what came from the target", secs(30), || match group.master().client().run("GET from-b").text() {
        found if found == "2" => Ok(()),
        other => Err(other),
    });
    assert_eq!(b.client().run("GET before").text(), "1");
    // both streams come from the replicas
    c.type_("s");
    c.shows(&[&group.replica().addr(), &replica.addr()]);
    c.type_("<esc>q");
    assert_eq!(c.ends(), 0);
}
