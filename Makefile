# What one types. Everything here is a thin name for a command that can be run by itself.

.DEFAULT_GOAL := help
.PHONY: help run demo demo-sentinel load bench bench-peers bench-reactors bench-keyed bench-compare bench-results deps test test-all clients mutations soak sanitize fuzz

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## One gateway on http://127.0.0.1:3000, without Redis (or with FANTAIL_REDIS_URL=redis://…)
	cargo run --release

demo: ## Redis, three gateways and nginx (HTTP, HTTPS with HTTP/2) as processes on this machine
	deploy/demo.sh

demo-sentinel: ## The same with two replicas of Redis, and three sentinels that watch it
	deploy/demo.sh --sentinel

load: ## The demo, thousands of streams, and what the gateways deliver to them (uses oha)
	deploy/load/run.sh

# --- Bench -----------------------------------------------------------------------------------

# How often everything is measured; QUICK=1 for some minutes; ONLY=memory,cpu for some measures.
RUNS ?= $(if $(QUICK),1,5)
BENCH_WHAT = --runs $(RUNS) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))
BENCH = target/release/fantail-bench all $(BENCH_WHAT)
BENCH_COMPARE = target/release/fantail-bench compare $(BENCH_WHAT)
PEERS = target/bench/peers

.PHONY: bench-build
bench-build:
	cargo build --release
	cargo build --release -p fantail-bench

bench: bench-build ## What everything costs, beside the smallest server that says the same (QUICK=1, RUNS=5, ONLY=memory,cpu)
	$(BENCH) --into target/bench/results

bench-peers: bench-build ## The same beside Nchan, Pushpin, Centrifugo and a Durable Streams server
	bench/peers.sh $(PEERS)
	$(BENCH) $(if $(ONLY),,--only memory,connect,fanout) --into target/bench/peers-results \
		--server reference --server reference-io-uring --server fantail --server fantail-embedded \
		--server nchan --server nchan-redis --server pushpin --server durable-streams \
		--server centrifugo --server centrifugo-redis

# What a number of reactors earns, and which is the best default.
bench-reactors: bench-build ## The same with 0, 1 and 2 reactors; 0 leaves all streams to the HTTP server
	$(BENCH) $(if $(ONLY),,--only memory,shared-topics,connect,fanout,fairness) \
		--into target/bench/reactors-results --server reference \
		$(foreach log,fantail fantail-embedded,$(foreach n,0 1 2,--server $(log)+reactors=$(n)))

bench-keyed: bench-build ## The same without a key, and with one and a token for each stream
	$(BENCH) $(if $(ONLY),,--only memory,connect,fanout,publish) --into target/bench/keyed-results \
		$(foreach server,fantail fantail-keyed fantail-embedded fantail-embedded-keyed,--server $(server))

bench-compare: bench-build ## This build beside another, as BEFORE=/path/to/fantail (QUICK=1, RUNS=5, ONLY=memory,cpu)
	$(BENCH_COMPARE) --fantail $(BEFORE)

bench-results: ## Write bench/RESULTS.md and bench/results.svg from what was measured last
	target/release/fantail-bench report --into bench \
		$(wildcard $(addprefix target/bench/,$(addsuffix .json,results peers-results reactors-results keyed-results)))

# --- Tests -----------------------------------------------------------------------------------

# Debian puts nginx and haproxy where not everybody's path leads.
export PATH := $(PATH):/usr/sbin

deps: ## Install the programs that the tests run (as root with apt), or say what to install
	tests/require.sh

test: deps ## Formatting, lints, documentation, every test once: ten minutes at most
	tests/run.sh quick

test-all: deps ## The same, longer explorations, every carriage of streams, all mutations: 45 at most
	tests/run.sh all

# Minutes for each fault and for all of them at random, and whose randomness it is:
#   SOAK_SECONDS=60 SOAK_MIXED_SECONDS=300 SEED=… make soak
# SOAK_ONLY=network takes those faults alone whose line in the table contains the word.
soak: deps ## Every fault for a minute, then all at random for five; prints a table
	cargo test --test promises faults::soak -- --ignored --nocapture

clients: deps ## Thirteen client libraries from npm, PyPI and Go, cut at every byte of a block
	tests/clients/install.sh
	cargo test --test clients -- --ignored --nocapture

# There is no unsafe code here: it looks at what the crates below us do with memory.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
sanitize: ## The library's tests under AddressSanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --lib --target $(HOST) \
		--target-dir target/sanitize

# Each target gets that many seconds, those of ONLY or all of them: FUZZ_SECONDS=600 ONLY=request_head make fuzz
# `make test` gives all of them together FUZZ_SECONDS, unguided.
fuzz: ## Every reader of the network, given whatever bytes, guided by coverage: a minute each
	fuzz/run.sh $(ONLY)

# Each mistake in tests/mutations is made in a copy, and a test must catch it:
# make mutations MUTATIONS="no-audit gap-ignored"
MUTATIONS ?=
mutations: deps ## Make every mistake of tests/mutations; each must be caught by a test
	MUTATIONS="$(MUTATIONS)" cargo test --test mutations -- --ignored --nocapture

# --- End of tests ----------------------------------------------------------------------------
