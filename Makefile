# The project's interface: `make` lists the targets, and CI runs nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo up test bench bench-peers faults fuzz check build next deploy-test

# Where rustup puts cargo, for shells that have not read its settings yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TOOLS := scripts/install-tools.sh
# The programs without the tests, compiled quickly and not for speed.
QUICK_BUILD := cargo build --profile demo --locked -p leasehold-cli -p leasehold-api -p leasehold-worker

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' Makefile

demo: ## Install what is missing, build, run a real job on a private system, show its results, and stop.
	$(TOOLS) cargo cc redis python3
	$(QUICK_BUILD) --no-default-features
	$(TARGET_DIR)/demo/leasehold demo

up: ## The same, but it stays up until Ctrl-C; with LEASEHOLD_REDIS_URL set it uses that Redis.
	$(TOOLS) cargo cc $(if $(LEASEHOLD_REDIS_URL),,redis) python3
	$(QUICK_BUILD)
	$(TARGET_DIR)/demo/leasehold up

test: ## Install what the tests need, build, and run them all.
	$(TOOLS) cargo cc redis python3 venv node chromium
	$(MAKE) --no-print-directory build next
	cargo test --release --workspace --locked

bench: ## Measure Leasehold against its speed goals, as in BENCH_ARGS="--quick --only 3,memory"; see docs/performance.md.
	$(TOOLS) cargo cc redis
	cargo build --release --locked -p leasehold-cli -p leasehold-api -p leasehold-worker
	$(TARGET_DIR)/release/leasehold bench $(BENCH_ARGS)

# Where the rows of the fault matrix leave their lines.
FAULTS := $(TARGET_DIR)/faults

faults: ## Try every row of the fault matrix, and write its table into docs/faults.md; as root, all of them.
	$(TOOLS) cargo cc redis python3
	$(MAKE) --no-print-directory build next
	rm -rf $(FAULTS) && mkdir -p $(FAULTS)
	LEASEHOLD_FAULTS_TABLE=$(abspath $(FAULTS)) cargo test --release --locked -p leasehold-tests --test suite -- \
	  --include-ignored --test-threads 1 faults:: chaos::
	sed '/^| 1 |/,$$d' docs/faults.md > $(FAULTS)/page
	cat $(FAULTS)/[0-9]* >> $(FAULTS)/page
	cp $(FAULTS)/page docs/faults.md

fuzz: ## Give mutations of the corpus to every parser of foreign bytes, for FUZZ_SECONDS each (60).
	$(TOOLS) cargo cc redis python3
	$(MAKE) --no-print-directory build
	LEASEHOLD_FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) cargo test --release --locked -p leasehold-tests --test suite -- \
	  --nocapture --test-threads 1 fuzz::

check: ## Check the formatting, the lints and the docs; a warning is an error.
	$(TOOLS) lint cc
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --release --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --release --locked

build: ## Build all binaries for speed, into target/release.
	cargo build --release --workspace --locked

next: ## Build the API and the worker of a next version, for the test of a rolling upgrade.
	cargo build --profile demo --locked -p leasehold-api -p leasehold-worker --no-default-features \
	  --features leasehold-api/next-record,leasehold-worker/next-record --target-dir $(TARGET_DIR)/next

bench-peers: ## Compare with other queues on Redis, and write the tables and the chart into README.md and docs/. ARGS=--help lists options.
	$(TOOLS) cargo cc redis python3 venv node sidekiq
	cargo build --release --locked -p leasehold-worker --example peer
	python3 bench/peers.py $(or $(ARGS),--docs)

deploy-test: ## Run the image, the compose file and the Kubernetes manifests with podman; needs root. BINARIES=folder skips the build.
	$(TOOLS) $(if $(BINARIES),,cargo cc) python3 venv node containers
	$(if $(BINARIES),,cargo build --release --locked -p leasehold-api -p leasehold-worker -p leasehold-cli)
	python3 scripts/deploy-test.py --binaries $(or $(BINARIES),$(TARGET_DIR)/release) $(if $(CACHE),--cache $(CACHE))
