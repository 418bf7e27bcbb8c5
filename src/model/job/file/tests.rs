//! Each kind of mistake, and the round trip.

use super::*;
use crate::model::{
    AccountSource, Databases, ExistingKeys, Instance, Job, Limits, Policy, Topology,
    job::{ReadFrom, Tls},
    secret::Inline,
};
use proptest::prelude::*;

const WHOLE: &str = r#"name = "orders"

[source]                          # forward link: source -> target; the reverse link is the other way round
address  = "10.0.0.1:6379"        # or a list: cluster seeds, sentinels
topology = "auto"                 # auto | standalone | cluster | sentinel
account  = "admin:Rp829:dlwa"
region = "cn-hangzhou"
id     = "r-bp1abc"

[target]
address = "10.1.0.1:6379"

[policy]
conflict       = "overwrite"
existing_keys  = "block"
databases      = "all"
two_way        = true
forward_flush  = false

[limits]
max_ops_per_second = 0
spool_disk = "10GiB"
"#;

fn faults(text: &str) -> Vec<String> {
    match parse(text, "orders.toml") {
        Ok(job) => panic!("taken as {job:?}"),
        Err(error) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// The one mistake of `WHOLE` with `from` replaced by `to`.
fn fault(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from:?} is not in the example");
    let all = faults(&WHOLE.replacen(from, to, 1));
    assert_eq!(all.len(), 1, "{all:#?}");
    all[0].clone()
}

#[test]
fn the_documented_file_is_read() {
    let job = parse(WHOLE, "orders.toml").unwrap();
    assert_eq!(job.name, "orders");
    assert_eq!(job.source.addresses, ["10.0.0.1:6379"]);
    assert_eq!(job.source.account, AccountSource::Inline(Inline::new("admin:Rp829:dlwa")));
    assert_eq!((job.source.region.as_deref(), job.source.id.as_deref()), (Some("cn-hangzhou"), Some("r-bp1abc")));
    assert_eq!(job.policy, Policy::default());
    assert_eq!(job.limits, Limits::default());
}

#[test]
fn the_least_file_has_the_defaults() {
    let job = parse("name='o'\nsource.address='a:1'\ntarget.address=['b:1','[::1]:2']", "f").unwrap();
    assert_eq!(job.target.addresses, ["b:1", "[::1]:2"]);
    assert_eq!((job.policy, job.limits), (Policy::default(), Limits::default()));
}

#[test]
fn unknown_keys_name_their_line_and_the_nearest_word() {
    assert_eq!(
        fault("two_way        = true", "two_ways = true"),
        "orders.toml:17:1: unknown key \"two_ways\" in [policy] (did you mean \"two_way\"?); allowed: conflict, \
         existing_keys, databases, two_way, forward_flush, allow_resnapshot, show_values"
    );
    assert_eq!(
        fault("[limits]", "[limit]"),
        "orders.toml:20:2: unknown key \"limit\" (did you mean \"limits\"?); allowed: name, source, target, policy, limits"
    );
    assert!(
        fault("region = ", "zebra = ")
            .starts_with("orders.toml:7:1: unknown key \"zebra\" in [source]; allowed: address,")
    );
}

#[test]
fn missing_things_are_named() {
    assert!(fault("name = \"orders\"", "").contains("the key \"name\" is missing"));
    assert!(fault("address = \"10.1.0.1:6379\"", "").contains(":10:1: the key \"address\" is missing in [target]"));
    let all = faults("name = \"x\"\n");
    assert_eq!(all.len(), 2);
    assert!(all[0].contains("the table [source] is missing") && all[1].contains("the table [target] is missing"));
}

#[test]
fn bad_addresses_say_why() {
    for (bad, why) in [
        ("10.1.0.1", "the port is missing"),
        ("10.1.0.1:0", "the port is not a number from 1 to 65535"),
        ("10.1.0.1:65536", "the port is not a number from 1 to 65535"),
        ("10.1.0.1:+1", "the port is not a number"),
        (":6379", "the host is missing"),
        ("::1:6379", "an IPv6 address stands in brackets"),
        ("[::1:6379", "the bracket is not closed"),
        ("[::x]:6379", "not an IPv6 address"),
        ("redis://h:6379", "leave the scheme out"),
        ("admin:x@h:6379", "an account has a key of its own"),
        ("h h:6379", "it holds a blank"),
        ("h/x:6379", "that is not a host's name"),
    ] {
        let said = fault("\"10.1.0.1:6379\"", &format!("{bad:?}"));
        assert!(said.starts_with("orders.toml:11:11: ") && said.contains(why), "{bad}: {said}");
        assert!(said.contains("allowed: host:port"), "{said}");
    }
    assert!(fault("\"10.1.0.1:6379\"", "[]").contains("the list of addresses in [target] is empty"));
    assert!(fault("\"10.1.0.1:6379\"", "6379").contains("can't be an integer"));
    assert!(fault("\"10.1.0.1:6379\"", "['a:1', 'a:1']").contains("stands twice"));
    assert_eq!(address("[FE80::1%eth0]:1"), Ok(("fe80::1%eth0".into(), 1)));
}

#[test]
fn an_address_may_say_that_it_speaks_tls() {
    let read = |address: &str, line: &str| {
        let text = format!("name='o'\n[source]\naddress='s:1'\n[target]\naddress={address}\n{line}\n");
        parse(&text, "f").map(|job| job.target).map_err(|e| e.to_string())
    };
    let one = read("'rediss://h:6380'", "tls_server_name='redis.test'").unwrap();
    assert_eq!(one.addresses, ["h:6380"]);
    assert_eq!(one.tls.and_then(|t| t.server_name).as_deref(), Some("redis.test"));
    assert_eq!(read("['rediss://[::1]:1', 'rediss://b:2/']", "").unwrap().addresses, ["[::1]:1", "b:2"]);
    assert!(read("['rediss://a:1', 'b:2']", "").unwrap_err().contains("one instance speaks TLS or not"));
    assert!(read("'rediss://a:1'", "tls=false").unwrap_err().contains("exclude each other"));
    assert!(read("'rediss://u:p@a:1'", "").unwrap_err().contains("an account has a key of its own"));
}

#[test]
fn one_instance_on_both_sides_is_refused() {
    let said = fault("\"10.1.0.1:6379\"", "['z:1', '10.0.0.1:6379']");
    assert!(
        said.ends_with("[source] and [target] both name 10.0.0.1:6379; a job needs two different instances"),
        "{said}"
    );
    let two = "name='o'\n[source]\naddress='s:1'\nmaster_name='a'\n[target]\naddress='s:1'\nmaster_name=";
    assert!(parse(&format!("{two}'b'"), "f").is_ok(), "two masters of one sentinel group");
    assert!(faults(&format!("{two}'a'"))[0].contains("both name s:1"));
}

#[test]
fn accounts_exclude_each_other() {
    let said = fault("region = \"cn-hangzhou\"", "account_env = \"A\"");
    assert_eq!(
        said,
        "orders.toml:7:1: account and account_env in [source] exclude each other; allowed: one of account, account_env, \
         account_file, account_command"
    );
    let read = |line: &str| parse(&WHOLE.replace("account  = \"admin:Rp829:dlwa\"", line), "f").unwrap().source;
    assert_eq!(read("account_env = 'A'").account, AccountSource::Env("A".into()));
    assert_eq!(read("account_file = 'A'").account, AccountSource::File("A".into()));
    assert_eq!(read("account_command = 'A'").account, AccountSource::Command("A".into()));
    assert_eq!(read("sentinel_account_env = 'A'").sentinel_account, AccountSource::Env("A".into()));
    assert_eq!(read("account = ''").account, AccountSource::None);
    assert!(
        fault("account  = \"admin:Rp829:dlwa\"", "account_file = ''").contains("account_file in [source] is empty")
    );
}

#[test]
fn a_message_never_shows_an_account() {
    let said = fault("account  = \"admin:Rp829:dlwa\"", "account = 829");
    assert_eq!(said, "orders.toml:6:11: account in [source] is an integer; allowed: a text in quotes");
    let said = fault("account  = \"admin:Rp829:dlwa\"", "account = hunter2");
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn bad_values_say_what_is_allowed() {
    for (from, to, said) in [
        (
            "\"auto\"",
            "\"clustr\"",
            "topology in [source] can't be \"clustr\" (did you mean \"cluster\"?); allowed: \"auto\", \"standalone\"",
        ),
        ("\"overwrite\"", "\"lww\"", "conflict in [policy] can't be \"lww\"; allowed: \"overwrite\""),
        ("\"block\"", "3", "existing_keys in [policy] can't be 3; allowed: \"block\", \"ignore\", \"merge\""),
        ("\"all\"", "\"some\"", "databases in [policy] can't be \"some\"; allowed: \"all\", or a list"),
        ("\"all\"", "[]", "the list of databases is empty; allowed: \"all\""),
        ("\"all\"", "[0, -1]", "not a database's number"),
        ("two_way        = true", "two_way = \"yes\"", "two_way in [policy] can't be \"yes\"; allowed: true or false"),
        ("max_ops_per_second = 0", "max_ops_per_second = -1", "can't be -1; allowed: a whole number from 0 on"),
        (
            "\"10GiB\"",
            "\"10 gallons\"",
            "spool_disk in [limits] can't be \"10 gallons\"; allowed: a number of bytes, or a size",
        ),
        ("max_ops_per_second = 0", "lag_alert_ms = 0", "allowed: a whole number from 1 on"),
        ("max_ops_per_second = 0", "spool_memory = 17", "at least 1MiB"),
        ("\"orders\"", "\"two words\"", "\"two words\" can't be a job's name; allowed: 1 to 64 letters"),
        ("\"orders\"", "\"x.toml\"", "can't be a job's name"),
        ("\"auto\"", "\"sentinel\"", "topology \"sentinel\" needs master_name in [source]"),
        ("region = \"cn-hangzhou\"", "ca_file = \"x\"", "ca_file in [source] has no effect without tls = true"),
        ("region = \"cn-hangzhou\"", "tls = true\ncert_file = \"x\"", "cert_file in [source] needs key_file"),
        ("region = \"cn-hangzhou\"", "read_from = \"slave\"", "read_from in [source] can't be \"slave\""),
    ] {
        let found = fault(from, to);
        assert!(found.contains(said), "{to}: {found}");
    }
}

#[test]
fn broken_toml_has_a_line_too() {
    let said = fault("[target]", "[target");
    assert!(said.starts_with("orders.toml:10:") && said.contains("this is not TOML"), "{said}");
    assert!(faults("policy = 3\n").iter().any(|f| f.contains("has to be a table")));
}

#[test]
fn all_mistakes_are_told_at_once_in_order() {
    let text =
        WHOLE.replace("\"auto\"", "\"x\"").replace("two_way  ", "two_wax  ").replace("10.1.0.1:6379", "10.1.0.1");
    let lines: Vec<String> = faults(&text).iter().map(|f| f.split(':').nth(1).unwrap().to_owned()).collect();
    assert_eq!(lines, ["5", "11", "17"]);
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("10GiB", 10u64 << 30),
        ("10 gib", 10 << 30),
        ("1.5KiB", 1536),
        ("512MB", 512_000_000),
        ("4096", 4096),
        ("7B", 7),
        ("0", 0),
        ("1TiB", 1 << 40),
    ] {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for text in ["", "GiB", "-1", "1.", ".5MiB", "0.3B", "1e3", "10XB", "99999999999TiB", "1.1.1"] {
        assert_eq!(parse_size(text), None, "{text}");
    }
}

#[test]
fn a_file_without_secrets_says_so() {
    let job = parse(WHOLE, "f").unwrap();
    let text = to_toml(&job, false);
    assert!(!text.contains("Rp829"), "{text}");
    assert!(text.contains("# account_env = \"SRC_ACCOUNT\""), "{text}");
    assert_eq!(parse(&text, "f").unwrap().source.account, AccountSource::None);
}

#[test]
fn the_written_file_looks_like_the_documented_one() {
    let mut job = parse(WHOLE, "f").unwrap();
    job.policy.databases = Databases::Only(vec![0, 3]);
    insta::assert_snapshot!(to_toml(&job, true));
}

fn account() -> impl Strategy<Value = AccountSource> {
    prop_oneof![
        Just(AccountSource::None),
        "\\PC{1,20}".prop_map(|s| AccountSource::Inline(Inline::new(s))),
        "[A-Z_]{1,9}".prop_map(AccountSource::Env),
        ".{1,20}".prop_map(AccountSource::File),
        ".{1,20}".prop_map(AccountSource::Command),
    ]
}

fn instance(addresses: &'static str) -> impl Strategy<Value = Instance> {
    let label = || proptest::option::of(".{1,12}");
    let tls = proptest::option::of((label(), proptest::option::of((".{1,9}", ".{1,9}")), label()).prop_map(
        |(ca_file, pair, server_name)| {
            let (cert_file, key_file) = pair.unzip();
            Tls { ca_file, cert_file, key_file, server_name }
        },
    ));
    let topology = prop_oneof![
        (Just(Topology::Auto), label()),
        (Just(Topology::Standalone), Just(None)),
        (Just(Topology::Cluster), Just(None)),
        (Just(Topology::Proxy), Just(None)),
        (Just(Topology::Sentinel), ".{1,9}".prop_map(Some)),
    ];
    let addresses = proptest::collection::btree_set(addresses, 1..4);
    let read_from = prop_oneof![Just(ReadFrom::Master), Just(ReadFrom::Replica)];
    (addresses, topology, account(), account(), tls, read_from, label(), label()).prop_map(
        |(addresses, (topology, master_name), account, sentinel_account, tls, read_from, region, id)| {
            let mut addresses: Vec<String> = addresses.into_iter().collect();
            if matches!(topology, Topology::Standalone | Topology::Proxy) {
                addresses.truncate(1);
            }
            let shards = match topology {
                Topology::Proxy => vec![format!("shard.{}", addresses[0])],
                _ => Vec::new(),
            };
            Instance { addresses, topology, shards, account, tls, master_name, sentinel_account, read_from, region, id }
        },
    )
}

fn job() -> impl Strategy<Value = Job> {
    let existing = prop_oneof![Just(ExistingKeys::Block), Just(ExistingKeys::Ignore), Just(ExistingKeys::Merge)];
    let databases = prop_oneof![
        Just(Databases::All),
        proptest::collection::btree_set(0u32..100_000, 1..5).prop_map(|s| Databases::Only(s.into_iter().collect())),
    ];
    let policy = (existing, databases, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(existing_keys, databases, two_way, forward_flush, allow_resnapshot, show_values)| Policy {
            existing_keys,
            databases,
            two_way,
            forward_flush,
            allow_resnapshot,
            show_values,
        },
    );
    let size = || prop_oneof![(1u64 << 20)..(1 << 50), (1u64..2000).prop_map(|n| n << 30)];
    let limits = (0u64..1 << 40, 0u64..1 << 40, size(), size(), 1u64..1 << 40).prop_map(
        |(max_ops_per_second, max_bytes_per_second, spool_memory, spool_disk, lag_alert_ms)| Limits {
            max_ops_per_second,
            max_bytes_per_second,
            spool_memory,
            spool_disk,
            lag_alert_ms,
        },
    );
    // The two sides' hosts never meet, so that no generated job names one server twice.
    (
        "[\\p{L}0-9_][\\p{L}0-9_.-]{0,50}x",
        instance("a[a-z0-9.]{0,9}:[1-9][0-9]{0,3}"),
        instance("b[a-z0-9.]{0,9}:[1-9][0-9]{0,3}"),
        policy,
        limits,
    )
        .prop_map(|(name, source, target, policy, limits)| Job { name, source, target, policy, limits })
}

#[test]
fn a_proxy_has_one_address_and_names_its_shards_where_it_is_read() {
    let file = |source: &str, target: &str, policy: &str| {
        let text = format!("name = 'j'\n[source]\n{source}\n[target]\n{target}\n[policy]\n{policy}\n");
        parse(&text, "f").map_err(|e| e.to_string())
    };
    let plain = "address = 'a:1'";
    let hidden = "address = 'b:1'\ntopology = 'proxy'";
    let named = "address = 'b:1'\ntopology = 'proxy'\nshards = ['b:2', 'b:3']";
    let job = file(plain, hidden, "two_way = false").unwrap();
    assert!(job.target.hides_shards() && job.target.seeds() == ["b:1"]);
    let job = file(plain, named, "").unwrap();
    assert!(!job.target.hides_shards() && job.target.seeds() == ["b:2", "b:3"]);
    assert!(file(plain, hidden, "").unwrap_err().contains("can't be read through a proxy"));
    assert!(file(plain, hidden, "").unwrap_err().contains("two_way = false"));
    let reversed = hidden.replace("b:1", "c:1");
    assert!(file(&reversed, plain, "two_way = false").unwrap_err().contains("shards = ["));
    let two = "address = ['b:1', 'b:2']\ntopology = 'proxy'";
    assert!(file(plain, two, "two_way = false").unwrap_err().contains("one address"));
    assert!(file(plain, "address = 'b:1'\nshards = ['b:2']", "").unwrap_err().contains("topology \"proxy\" only"));
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_the_same_job(job in job()) {
        let text = to_toml(&job, true);
        match parse(&text, "written.toml") {
            Ok(read) => prop_assert_eq!(read, job),
            Err(error) => prop_assert!(false, "{error}\n{text}"),
        }
    }

    #[test]
    fn any_text_is_a_job_or_a_message(text in "\\PC{0,80}") {
        if let Err(error) = parse(&text, "f") {
            prop_assert!(!error.mistakes.is_empty());
        }
    }

    #[test]
    fn sizes_round_trip(bytes in 0u64..1 << 62) {
        prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
    }
}
