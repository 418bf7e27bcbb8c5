# make test is what CI runs; everything else is convenience.
CARGO ?= cargo
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
export DUPLEX_SERVERS ?= $(HOME)/.cache/redis-servers

.PHONY: build test check tested run-tests demo bench instructions instructions-write soak storms servers redis clean help
.DEFAULT_GOAL := build

build: ## the release binary, target/release/duplex
	$(CARGO) build --release --locked

test: servers check run-tests ## set-up, format, lints, all tests

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# The runner comes last: its closing lines are the result.
run-tests: tested
	$(CARGO) test --locked --doc
ifdef NEXTEST
	$(CARGO) nextest run --locked $(if $(CI),--profile ci)
else
	$(CARGO) test --locked --lib --bins --tests --no-fail-fast -- --test-threads=2
endif

# The program that the tests start, optimized a little and with all its assertions: an engine without any optimization is
# five times slower, and what a cluster's storm leaves to catch up with then outlasts what a test waits.
tested: export CARGO_PROFILE_DEV_OPT_LEVEL = 1
tested:
	$(CARGO) build --locked --bin duplex
	@mkdir -p target/tested && cp target/debug/duplex target/tested/duplex
run-tests: export DUPLEX_TEST_BINARY ?= $(CURDIR)/target/tested/duplex

demo: build redis ## two throwaway servers with traffic on both sides, and the console on the job between them
	@DUPLEX_REDIS_SERVER="$${DUPLEX_REDIS_SERVER:-$$(command -v redis-server || command -v valkey-server \
		|| ls $(DUPLEX_SERVERS)/*/bin/redis-server 2>/dev/null | tail -n 1)}" target/release/duplex demo

bench: servers ## throughput and latency beside native replication (minutes; a quiet machine)
	$(CARGO) bench --locked --bench native

instructions: ## instructions a change costs decoder and arbiter, against checked-in bounds (needs valgrind)
	$(CARGO) bench --locked --bench instructions

instructions-write: ## writes these bounds anew
	DUPLEX_INSTRUCTIONS=write $(CARGO) bench --locked --bench instructions

soak: ## every server, all pairs, many seeds, a million keys (hours)
	tests/servers.sh all
	DUPLEX_SOAK=1 DUPLEX_TEST_SERVERS=all DUPLEX_TEST_PATIENCE=3 \
		$(CARGO) $(if $(NEXTEST),nextest run --profile soak,test --no-fail-fast) --locked --release
	$(CARGO) test --locked --release --test tui_terminal over_ssh -- --ignored --nocapture

# SEEDS=n: n seeds on each of the four servers, a quarter at each delay, and n over copies of 200,000 keys, a quarter on
# each server; a failing seed does not end the run.
SEEDS ?= 52
storms: servers ## both sides written at random, the engine killed, links cut: many seeds, results in target/storms.txt
	DUPLEX_SOAK=1 DUPLEX_SEEDS=$(SEEDS) DUPLEX_STORM_RESULTS=$(CURDIR)/target/storms.txt \
		$(CARGO) test --locked --release --test conflicts -- sites_converge_on sites_converge_while --test-threads=4 --nocapture

servers: ## the servers that the tests run against
	@tests/servers.sh

# One redis-server, for those who only want to look.
redis:
	@[ -n "$$DUPLEX_REDIS_SERVER" ] || command -v redis-server >/dev/null || command -v valkey-server >/dev/null || ls $(DUPLEX_SERVERS)/*/bin/redis-server >/dev/null 2>&1 || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get install -y -q redis-server; \
		else echo "redis-server is not on PATH: install it with your package manager (Debian: apt-get install redis-server)"; exit 1; fi; }

clean:
	$(CARGO) clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'
