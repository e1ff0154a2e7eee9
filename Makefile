# What one types. Everything here is a thin name for a command that can be run by itself.

.DEFAULT_GOAL := help
.PHONY: help run demo load deps test soak

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## One gateway on http://127.0.0.1:3000, without Redis (or with FANTAIL_REDIS_URL=redis://…)
	cargo run --release

demo: ## Redis, three gateways and nginx (HTTP, HTTPS with HTTP/2) as processes on this machine
	deploy/demo.sh

load: ## The demo, thousands of streams, and what the gateways deliver to them (uses oha)
	deploy/load/run.sh

# --- Tests -----------------------------------------------------------------------------------

# Debian puts nginx and haproxy where not everybody's path leads.
export PATH := $(PATH):/usr/sbin

deps: ## Install the programs that the tests run (as root with apt), or say what to install
	tests/require.sh

test: deps ## Formatting, lints, documentation, all tests
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps
	cargo test

# Minutes for each fault and for all of them at random, and whose randomness it is:
#   SOAK_SECONDS=60 SOAK_MIXED_SECONDS=300 SEED=… make soak
# SOAK_ONLY=network takes those faults alone whose line in the table contains the word.
soak: deps ## Every fault for a minute, then all at random for five; prints a table
	cargo test --test promises faults::soak -- --ignored --nocapture

# --- End of tests ----------------------------------------------------------------------------
