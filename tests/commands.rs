//! Every write command, each way: value, type and expiry equal afterwards, and nothing of it comes back.
//!
//! The list of commands is the server's own. One that has no recipe and no reason to lack one fails the suite, so a
//! new server's new command can't be forgotten.

mod support;

#[path = "commands/recipes.rs"]
mod recipes;

use recipes::{DTS, Effect, LEFT_OUT, RECIPES, Recipe};
use std::collections::BTreeSet;
use support::{
    compare::{Keyspace, Level, differences, read},
    observer::Observer,
    resp::Argv,
    versions::{Slot, neighbours, speaks, versions},
    words::words,
    *,
};

/// The write commands that a server lists, subcommands as `NAME|SUB`.
fn write_commands(server: &Server) -> BTreeSet<String> {
    fn collect(entry: &Reply, out: &mut BTreeSet<String>) {
        let parts = entry.items();
        let subcommands = parts.get(9).map(Reply::items).unwrap_or_default();
        if parts[2].items().iter().any(|f| f.text() == "write") {
            out.insert(parts[0].text().to_uppercase());
        }
        for s in subcommands {
            collect(s, out);
        }
    }
    let mut out = BTreeSet::new();
    for entry in server.client().run("COMMAND").items() {
        collect(entry, &mut out);
    }
    out
}

/// Whether a recipe's command is known to a server: in its list, as a container before 7.0, or no write of its own.
fn knows(server: &str, listed: &BTreeSet<String>, recipe: &Recipe) -> bool {
    let container = recipe.command.split('|').next().unwrap_or_default();
    let no_write = ["SELECT", "MULTI", "EXEC", "EVAL", "EVALSHA", "FCALL"].contains(&recipe.command);
    let known = listed.contains(recipe.command) || (speaks(server) < (7, 0) && listed.contains(container)) || no_write;
    known && speaks(server) >= recipe.since
}

/// Plays recipes at one server and proves that each of them wrote something there.
struct Player<'a> {
    server: &'a Server,
    third: &'a Server,
    /// Goes into every key, so that both directions have keys of their own.
    way: &'static str,
}

impl Player<'_> {
    fn line(&self, n: usize, recipe: &Recipe, line: &str, last: &[u8]) -> Argv {
        let name = recipe.command.replace('|', "_");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
        let own = format!("{}_{n}_{name}_", self.way);
        words(line)
            .into_iter()
            .map(|word| {
                if word == b"$last" {
                    return last.to_vec();
                }
                let text = String::from_utf8(word);
                let text = match text {
                    Ok(t) => t,
                    Err(binary) => return binary.into_bytes(),
                };
                if let Some(n) = text.strip_prefix("$now+") {
                    return (now / 1000 + n.parse::<u128>().expect("seconds")).to_string().into_bytes();
                }
                if let Some(n) = text.strip_prefix("$ms+") {
                    return (now + n.parse::<u128>().expect("milliseconds")).to_string().into_bytes();
                }
                text.replace("$third", &self.third.port.to_string()).replace('@', &own).into_bytes()
            })
            .collect()
    }

    /// The keys of one recipe, or the libraries of functions.
    fn look(&self, n: usize, recipe: &Recipe) -> (Keyspace, String) {
        let own = format!("{}_{n}_", self.way);
        let functions = match recipe.effect {
            Effect::Functions => format!("{:?}", self.server.client().run("FUNCTION LIST WITHCODE")),
            Effect::Keys => String::new(),
        };
        (read(self.server, Level::of(self.server), &|k| k.starts_with(own.as_bytes())), functions)
    }

    fn play(&self, n: usize, recipe: &Recipe) {
        let mut client = self.server.client();
        let mut blocked: Option<Client> = None;
        let mut last = Vec::new();
        let mut run = |lines: &[&str], client: &mut Client| {
            for line in lines {
                if let Some(line) = line.strip_prefix('&') {
                    let mut other = self.server.client();
                    other.queue(&self.line(n, recipe, line, &last));
                    other.flush().expect("send a blocking command");
                    wait_for("the client is blocked", secs(10), || {
                        match self.server.info("clients", "blocked_clients").as_deref() {
                            Some("1") => Ok(()),
                            other => Err(format!("{other:?} blocked clients")),
                        }
                    });
                    blocked = Some(other);
                    continue;
                }
                let reply = client.call(&self.line(n, recipe, line, &last));
                assert!(!reply.is_error(), "{} {}: {line}: {reply:?}", self.server.name, recipe.command);
                if let Reply::Bulk(b) = &reply {
                    last = b.clone();
                }
            }
        };
        run(recipe.setup, &mut client);
        let before = self.look(n, recipe);
        run(recipe.act, &mut client);
        if let Some(mut other) = blocked {
            let reply = other.read().expect("the blocked command's reply");
            assert!(!reply.is_error() && reply != Reply::Nil, "{}: {reply:?}", recipe.command);
        }
        let after = self.look(n, recipe);
        assert!(
            !differences(&before.0, &after.0).is_empty() || before.1 != after.1,
            "{} {:?}: the recipe changed nothing, so it proves nothing",
            self.server.name,
            recipe
        );
    }
}

/// The recipes that both servers know.
fn recipes_for(a: &Server, b: &Server) -> Vec<(usize, &'static Recipe)> {
    let (at_a, at_b) = (write_commands(a), write_commands(b));
    RECIPES.iter().enumerate().filter(|(_, r)| knows(&a.name, &at_a, r) && knows(&b.name, &at_b, r)).collect()
}

fn functions(server: &Server) -> String {
    if speaks(&server.name) < (7, 0) {
        return String::new();
    }
    let mut libraries: Vec<String> =
        server.client().run("FUNCTION LIST WITHCODE").items().iter().map(|l| format!("{l:?}")).collect();
    libraries.sort();
    libraries.join("\n")
}

/// Plays every recipe at both sides of a running job, one side after the other.
fn both_ways(source: &str, target: &str) {
    let (a, b) = (Server::start(source, &[]), Server::start(target, &[]));
    let recipes = recipes_for(&a, &b);
    let duplex = Duplex::synced(&JobSpec::between(a.addr(), b.addr()));
    for (from, out, back) in [(&a, "forward", "reverse"), (&b, "reverse", "forward")] {
        // MIGRATE's destination has to be able to read what it is sent.
        let third = Server::start(&from.name, &[]);
        let returned = Observer::of(from);
        let before = duplex.status();
        let player = Player { server: from, third: &third, way: out };
        for (n, recipe) in &recipes {
            player.play(*n, recipe);
        }
        assert_equal_within(&a, &b, secs(60));
        wait_for("the functions are the same", secs(10), || match (functions(&a), functions(&b)) {
            (x, y) if x == y => Ok(()),
            (x, y) => Err(format!("{x}\n---\n{y}")),
        });
        let after = duplex.wait_applied(&a, &b, secs(30));
        let brought = returned.brought();
        assert!(brought.is_empty(), "{} of {out}'s changes came back:\n{}", brought.len(), brought.join("\n"));
        let moved = |direction: &str, field: &str| after.count(direction, field) - before.count(direction, field);
        assert!(moved(out, "changes_applied") >= recipes.len() as u64, "{:#}", after.0);
        assert_eq!(moved(back, "changes_applied"), 0, "{:#}", after.0);
        assert!(moved(back, "echoes_dropped") > 0, "{:#}", after.0);
        if source == target {
            assert_eq!(after.total("conflicts_settled"), 0, "one side at a time is no conflict: {:#}", after.0);
        } else {
            // What the other version has no words for is carried as the key's state: settled, though nobody disagreed.
            assert!(after.total("conflicts_settled") < recipes.len() as u64 / 4, "{:#}", after.0);
        }
    }
}

/// Every command that the server lists has a recipe that works on it, or a reason.
fn nothing_forgotten(name: &str) {
    let server = Server::start(name, &[]);
    let listed = write_commands(&server);
    let has =
        |command: &str| RECIPES.iter().any(|r| r.command == command || r.command.starts_with(&format!("{command}|")));
    let forgotten: Vec<_> = listed.iter().filter(|c| !has(c) && !LEFT_OUT.iter().any(|(left, _)| left == c)).collect();
    assert!(forgotten.is_empty(), "{name}: write commands without a recipe or a reason: {forgotten:?}");
    let missing: Vec<_> = DTS.iter().filter(|c| !has(c) && **c != "PUBLISH").collect();
    assert!(missing.is_empty(), "of DTS's list: {missing:?}");
    // And the recipes do what they say, on this server, with nothing in between.
    let third = Server::start(name, &[]);
    let player = Player { server: &server, third: &third, way: "alone" };
    for (n, recipe) in recipes_for(&server, &server) {
        player.play(n, recipe);
    }
}

macro_rules! each_slot {
    ($($test:ident $slot:ident),*) => { $(
        mod $test {
            use super::*;

            #[test]
            fn every_command_goes_both_ways_and_none_comes_back() {
                both_ways(Slot::$slot.server(), Slot::$slot.server());
            }
        }
    )* };
}

each_slot!(oldest Oldest, usual Usual, newest_redis NewestRedis, newest_valkey NewestValkey);

#[test]
fn no_write_command_of_any_server_is_forgotten() {
    for name in versions() {
        nothing_forgotten(&name);
    }
}

#[test]
fn commands_go_both_ways_between_neighbouring_versions() {
    for (source, target) in neighbours() {
        eprintln!("{source} and {target}");
        both_ways(&source, &target);
    }
}

#[test]
fn every_reason_names_a_command_that_some_server_has() {
    let servers = versions();
    let listed: BTreeSet<String> = servers.iter().flat_map(|n| write_commands(&Server::start(n, &[]))).collect();
    for (command, reason) in LEFT_OUT {
        // Valkey's alone; its slot falls back to one that does not have it.
        let no_write = ["PUBLISH", "CLUSTER|FLUSHSLOT", "TRIMSLOTS", "XIDMPRECORD"].contains(command);
        assert!(no_write || listed.contains(*command), "{command} ({reason}) is in no server's list");
    }
}
