//! The precheck on real servers: each item passing and failing for real.

#[path = "support/precheck_support.rs"]
mod precheck_support;

use precheck_support::*;
use redis_duplex::{
    engine::{
        precheck::{self, PrecheckOptions},
        probe,
    },
    model::{Check, CheckId, CheckState, Databases, Direction, ExistingKeys, Instance, JobId, Topology},
};

use CheckState::{Failed, Passed, Skipped, Warning};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_empty_servers_of_each_version_pass() {
    for name in VERSIONS {
        let (a, b) = (Server::start(name, &[]), Server::start(name, &[]));
        let job = job(a.instance(), b.instance());
        let report = report(&job, None).await;
        for check in &report.items {
            if std::env::var_os("SHOW").is_some() {
                println!(
                    "{name} {:?} {} [{}] why: {} do: {} {} ms",
                    check.state,
                    check.id.as_str(),
                    check.seen,
                    check.why,
                    check.remedy,
                    check.took_ms
                );
            }
            assert_eq!(check.state, Passed, "{name}: {check:#?}");
            assert!(!check.seen.is_empty(), "{name}: {check:#?}");
            assert!(check.took_ms < 10_000, "{check:?}");
        }
        assert!(report.passed);
        let ids: Vec<CheckId> = report.items.iter().map(|c| c.id).collect();
        assert_eq!(ids, CheckId::ALL);
        assert_eq!(a.run("DBSIZE"), redis::Value::Int(0), "the precheck writes nothing");
    }
}
