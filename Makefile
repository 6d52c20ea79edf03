# The project's interface: `make` lists the targets, and CI runs nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo up test check build next deploy-test

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

deploy-test: ## Run the image, the compose file and the Kubernetes manifests with podman; needs root. BINARIES=folder skips the build.
	$(TOOLS) $(if $(BINARIES),,cargo cc) python3 venv node containers
	$(if $(BINARIES),,cargo build --release --locked -p leasehold-api -p leasehold-worker -p leasehold-cli)
	python3 scripts/deploy-test.py --binaries $(or $(BINARIES),$(TARGET_DIR)/release) $(if $(CACHE),--cache $(CACHE))
