# The only list of tasks: people and CI use the same words. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory --no-builtin-rules

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# In CI the committed Cargo.lock is the truth; at a desk a new dependency may still enter it.
LOCKED := $(if $(CI),--locked)
SEEDS ?= 64
LOOM_PREEMPTIONS ?= 3
FUZZ_SECONDS ?= 60
ICOUNT_LIMIT ?= 3
MINUTES ?= 30
ROUNDS ?= 3
SECONDS_EACH ?= 20
ARGS ?=

comma := ,
say = @printf '\n== %s\n'

.PHONY: help
help: ## list the tasks
	@printf 'make <task>\n\n'
	@sed -n -E 's/^([a-z-]+):[^#]*## (.*)$$/  \1|\2/p' Makefile | awk -F'|' '{ printf "  %-21s %s\n", $$1, $$2 }'

# ---- run ----

.PHONY: run build js
run: ## build and start `fanfare dev` (ARGS=… are passed on)
	$(say) 'fanfare dev, release build'
	@cargo run --release $(LOCKED) --bin fanfare -- dev $(ARGS)

build: ## build the release binaries fanfare, fanfare-load and fanfare-floor
	$(say) 'release build of fanfare, fanfare-load and fanfare-floor'
	@cargo build --release $(LOCKED) --bin fanfare --bin fanfare-load --bin fanfare-floor

js: ## build the JavaScript client into clients/js/dist and into the gateway's assets
	$(say) 'JavaScript client'
	@tools/js build

# ---- check: what can be said without running Fanfare ----

.PHONY: check fmt-check clippy docs docs-configuration arrows planted-places deny advisories fmt
check: fmt-check planted-places clippy docs arrows deny ## formatting, lints, docs, crate arrows, licences, duplicate versions, sources
	@printf '\n== check: all well\n'

fmt: ## format the code
	@cargo fmt --all

fmt-check:
	$(say) 'formatting'
	@cargo fmt --all -- --check

clippy:
	$(say) 'clippy, warnings denied'
	@cargo clippy --workspace --all-targets $(LOCKED) -- -D warnings

docs: ## build the API docs, warnings denied
	$(say) 'docs, warnings denied'
	@RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps $(LOCKED)

docs-configuration: ## write docs/configuration.md from the declarations of the keys
	@cargo run --quiet $(LOCKED) --bin fanfare -- config docs > docs/configuration.md.new
	@mv docs/configuration.md.new docs/configuration.md

arrows: ## the crate arrows and the other house rules that are tests
	$(say) 'crate arrows and house rules'
	@tools/arrows $(LOCKED)

planted-places:
	$(say) 'every planted bug has its place in the code, every limit its place and tests'
	@tools/planted-bugs --places
	@tools/planted-limits --places

deny: ## licences, duplicate versions and sources of all dependencies
	$(say) 'licences, duplicate versions, sources'
	@deny=$$(tools/need cargo-deny) && "$$deny" $(LOCKED) check licenses bans sources

advisories: ## known vulnerabilities of the dependencies (needs the network: it fetches the RustSec database)
	$(say) 'advisories (needs the network: fetches the RustSec database)'
	@deny=$$(tools/need cargo-deny) && "$$deny" $(LOCKED) check advisories \
	  || { echo 'advisories: failed. If the database could not be fetched, nothing was checked; try again with access to github.com.' >&2; exit 1; }

# ---- test ----

.PHONY: upgrades
upgrades: ## ten upgrades on one machine under 500 connects a second: nobody is refused
	@FANFARE_TEST_UPGRADES=10 cargo test --quiet $(LOCKED) -p fanfare-server --test it -- handover::nobody_is_refused

.PHONY: cluster-test drain-test test unit send-paths doctest loom api-test pusher-test sim planted-bugs planted-limits fuzz browser js-test proxy-test deploy-test package systemd-test smoke soak stalled conformance load bench icount icount-baseline compare profile
test: unit send-paths doctest loom api-test pusher-test browser js-test proxy-test deploy-test ## every test: unit, integration, docs, loom models, Pusher's own client and libraries, browser, JavaScript client, HAProxy, nginx and Envoy, deploy/; installs what it needs
	@printf '\n== test: all passed\n'

unit: ## unit and integration tests of all crates, the load generator's audit included
	$(say) 'unit and integration tests'
	@export REDIS_SERVER=$$(tools/need redis-server) NATS_SERVER=$$(tools/need nats-server); if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace $(LOCKED); \
	else echo 'cargo-nextest is not installed: using cargo test'; cargo test --workspace --lib --bins --tests $(LOCKED); fi

# `unit` has run them over the path that `auto` chooses: io_uring where the kernel allows it.
send-paths: ## the integration tests over plain writes, without io_uring
	$(say) 'integration tests over plain writes'
	@export REDIS_SERVER=$$(tools/need redis-server) NATS_SERVER=$$(tools/need nats-server) TEST_SEND_PATH=writev; \
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run -p fanfare-server --test it $(LOCKED) -E 'not test(/^(arrows|tidy)::/)'; \
	else cargo test -p fanfare-server --test it $(LOCKED) -- --skip arrows --skip tidy; fi

doctest:
	$(say) 'examples in the docs'
	@cargo test --workspace --doc $(LOCKED)

loom: ## model-check the places where threads meet (LOOM_PREEMPTIONS=3)
	$(say) 'loom models, at most $(LOOM_PREEMPTIONS) preemptions'
	@LOOM_MAX_PREEMPTIONS=$(LOOM_PREEMPTIONS) tools/loom "$(TARGET)/loom" $(LOCKED)

sim: ## the seeded simulations with more seeds (SEEDS=1000)
	$(say) 'simulation, $(SEEDS) seeds'
	@SIM_SEEDS=$(SEEDS) tools/sim $(LOCKED)

planted-bugs: ## plants bugs in a copy of the core crates; simulation and models must find each (ARGS='outbox' plants some)
	$(say) 'planted bugs, $(SEEDS) seeds, at most $(LOOM_PREEMPTIONS) preemptions'
	@export NATS_SERVER=$$(tools/need nats-server); SEEDS=$(SEEDS) LOOM_PREEMPTIONS=$(LOOM_PREEMPTIONS) tools/planted-bugs $(ARGS)

planted-limits: ## takes one limit after the other out of a copy of the code; the tests named for it must fail (ARGS='outbox' takes some)
	$(say) 'limits taken away (some minutes to build, some to run)'
	@tools/planted-limits $(ARGS)

drain-test: ## 4,000 connections leave over 20 s: evenly, idle ones first, nobody refused (half a minute, on a quiet machine)
	$(say) 'drain of 4,000 connections over 20 s'
	@cargo test -p fanfare-server --test it $(LOCKED) -- --ignored --nocapture drain::pace::four_thousand

cluster-test: ## three NATS servers keep the log, one after the other dies under load: nothing is lost, every publisher is told (half a minute)
	$(say) 'a cluster of NATS servers that die'
	@export NATS_SERVER=$$(tools/need nats-server); \
	cargo test -p fanfare-server --test it $(LOCKED) -- --ignored --nocapture engine::nats_cluster

fuzz: ## each fuzz target for FUZZ_SECONDS=60; stops at the first crash (needs a nightly compiler; ARGS='frames' runs one)
	$(say) 'fuzzing, $(FUZZ_SECONDS) s each'
	@FUZZ_SECONDS=$(FUZZ_SECONDS) tools/fuzz $(ARGS)

api-test: ## requests made from /openapi.json, right and wrong ones, against a running gateway (schemathesis, from PyPI; EXAMPLES=20 SEED=1)
	$(say) 'API against its OpenAPI document'
	@cargo build --quiet $(LOCKED) --bin fanfare
	@tools/again api-test tools/api-test "$(TARGET)/debug/fanfare" "$(TARGET)"

pusher-test: ## pusher-js and the server libraries for Node and Python, as they are published, against a running gateway (from npm and PyPI)
	$(say) 'Pusher clients and libraries'
	@cargo build --quiet $(LOCKED) --bin fanfare
	@tools/again pusher-test tools/pusher-test "$(TARGET)/debug/fanfare" "$(TARGET)"

browser: ## the page in a real headless Chromium
	$(say) 'browser tests'
	@tools/again browser tools/browser "$(TARGET)" $(LOCKED)

js-test: ## the JavaScript client: alone, against a real server, and in Chromium
	$(say) 'JavaScript client'
	@tools/again js-test tools/js test "$(TARGET)" $(LOCKED)

proxy-test: ## the gateway behind HAProxy, nginx and Envoy (from PyPI), with the files of deploy/ (PROXY_LONG=1: idle for 100 s, too)
	$(say) 'behind HAProxy, nginx and Envoy'
	@tools/again proxy-test tools/proxies "$(TARGET)" $(LOCKED)

deploy-test: ## the files of deploy/: systemd, Kubernetes, Prometheus; each alert fired by a fault (needs the network once: PyPI)
	$(say) 'deploy/'
	@tools/again deploy-test tools/deploy-test "$(TARGET)" $(LOCKED)

package: build ## the Debian package, into target/package; installed, started and removed in an overlay when run as root
	$(say) 'Debian package'
	@tools/package "$(TARGET)"

systemd-test: ## the Debian package (make package) in an emulated machine with a real systemd: start, reload, watchdog, drain, socket, upgrade, removal (qemu; 5 to 15 minutes)
	$(say) 'systemd in an emulated machine'
	@tools/systemd-test "$(TARGET)"

smoke: build ## release server + fanfare-load: 5,000 connections in 500 rooms, nothing may be missing
	$(say) 'smoke: 5,000 connections in 500 rooms'
	@tools/again smoke tools/smoke "$(TARGET)/release"

soak: build ## everything at once for MINUTES=30: nothing lost unexplained, memory flat, no descriptor left
	$(say) 'soak, $(MINUTES) minutes'
	@node=$$(tools/need node) && ulimit -n "$$(ulimit -Hn)" && "$$node" tools/soak.mjs "$(TARGET)/release" $(MINUTES)

stalled: build ## what 2,000 readers that have stopped cost the others, in 256 MiB: rounds without them, with them and with 2,000 that read (ROUNDS=3 SECONDS_EACH=20)
	$(say) 'stalled readers, $(ROUNDS) rounds'
	@node=$$(tools/need node) && ulimit -n "$$(ulimit -Hn)" && "$$node" tools/stalled.mjs "$(TARGET)/release" $(ROUNDS) $(SECONDS_EACH)

conformance: ## the Autobahn test suite against /echo; writes docs/conformance.md (needs the network: PyPI; CASES='7.*' runs some)
	$(say) 'release build of fanfare'
	@cargo build --release $(LOCKED) --bin fanfare
	$(say) 'Autobahn test suite'
	@tools/conformance/run "$(TARGET)/release/fanfare" "$(TARGET)"

load: ## run fanfare-load (ARGS='--help' lists what it can do)
	@cargo run --release $(LOCKED) --bin fanfare-load -- $(ARGS)

bench: ## criterion benches of the hot stages (ARGS=… are passed on)
	$(say) 'benches'
	@cargo bench -p fanfare-benches $(LOCKED) $(if $(ARGS),-- $(ARGS))

icount: ## instructions of the hot stages against the baseline (ICOUNT_LIMIT=3 percent; ARGS='--only wire')
	$(say) 'instructions per operation, at most $(ICOUNT_LIMIT) % over the baseline'
	@tools/icount "$(TARGET)" compare $(LOCKED) -- --limit $(ICOUNT_LIMIT) $(ARGS)

icount-baseline: ## store the instruction counts of today as the baseline
	$(say) 'instructions per operation, stored'
	@tools/icount "$(TARGET)" store $(LOCKED) --

compare: build ## measure Fanfare against Bun, ws, Socket.IO, NATS, Nchan and the kernel's floor (QUICK=1: short)
	$(say) 'comparison$(if $(QUICK), (short: writes target/compare/quick$(comma) not docs/))'
	@QUICK=$(QUICK) tools/compare/compare "$(TARGET)/release" "$(TARGET)/compare" $(ARGS)

profile: build ## where the CPU time goes: the kernel's share and the costliest functions, by perf (ARGS='fanout-16 rooms')
	$(say) 'profile'
	@tools/profile "$(TARGET)/release" "$(TARGET)/profile" $(ARGS)

# ---- clean ----

.PHONY: clean
clean: ## remove what was built
	@cargo clean
	@rm -rf tests/browser/node_modules clients/js/node_modules clients/js/dist
