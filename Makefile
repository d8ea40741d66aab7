# `make` lists what there is. Each target is what CI, a developer and the README mean by that word.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
# `make demo RELEASE=1` runs the optimised build; without it the build that the tests use, which is there sooner.
PROFILE := $(if $(filter 1 yes true,$(RELEASE)),--release)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## the release binary, target/release/tidewaiter
	$(CARGO) build --locked --release

.PHONY: test
test: deps lint ## install what the tests need, then lint and run every test
	$(CARGO) test --locked

.PHONY: lint
lint: ## formatting, clippy and documentation, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

.PHONY: deps
deps: ## the Debian packages that the tests and the demo start, if missing
	@tests/install.sh

.PHONY: demo
demo: deps ## pushes judged beside a real registry, in a minute; KEEP=1 leaves it running, RELEASE=1 optimises
	$(CARGO) build --locked $(PROFILE) --bin tidewaiter --example push
	@$(CARGO) run --locked --quiet $(PROFILE) --example demo -- $(if $(filter 1 yes true,$(KEEP)),--keep)

.PHONY: image
image: deps ## the container image as an OCI layout in target/image, without an engine, judged by our own policy
	image/build.sh

.PHONY: bench
bench: ## the measured figures, each beside its baseline, as a table and as JSON; SUITES="judge find" runs some
	@bench/install.sh
	$(CARGO) bench --locked --bench figures -- $(SUITES)

.PHONY: fuzz
fuzz: ## a million inputs changed at random for each format of events; INPUTS=N for fewer
	tests/fuzz/run

.PHONY: reliability
reliability: ## crashes, full disks and lying registries, for longer than the tests have time
	@[ -x tests/reliability/run ] || { echo "there are no reliability runs yet" >&2; exit 1; }
	tests/reliability/run

.PHONY: sabotage
sabotage: ## breaks one guarantee at a time and shows that its test fails
	tests/reliability/sabotage

.PHONY: clean
clean: ## what was built, and what a demo left behind
	$(CARGO) clean
	rm -rf demo-run
