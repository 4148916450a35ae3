# fleetpool: how it is built and checked. `make help` lists the targets.
#
# Needs cargo (the pinned Rust, see Cargo.toml), a C compiler, and Python from 3.10 on with venv and pip (PYTHON=python3.12
# names another). cargo-nextest is used where it is installed: it runs tests side by side and ends those that hang;
# without it `cargo test` does, under one time limit. Everything below uses the dev profile, except `bench`.

SHELL := bash
CARGO ?= cargo
NEXTEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo yes)
DENY := $(shell $(CARGO) deny --version >/dev/null 2>&1 && echo yes)
# Well below what CI allows, so that a hang is told by us and not by a killed machine.
TEST_MINUTES_MAX ?= 12
# Simulated worlds per property in `make sim`; `make test` runs the number that its tests name.
SEEDS ?= 100000
PYTHON ?= python3
# Where the Python package is installed for its tests, and, as it is shipped, beside the pools that it is compared with.
VENV ?= $(CURDIR)/target/venv
BENCH_VENV ?= $(CURDIR)/target/bench-venv

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: build
build: ## the binary, the examples and the tests
	$(CARGO) build --locked --workspace --bins --examples --tests

# The tests last, so that their summary is the last thing one reads.
.PHONY: test
test: fleet-packages slurm-packages lint build doctest pytest nextest ## all that a change must pass

# Hosts in namespaces run the machine's own sshd, in networks of their own; the machine itself runs none, which RUNLEVEL=1 sees to.
.PHONY: fleet-packages
fleet-packages: ## what the tests with real hosts need of Debian's packages (they need root as well)
	@missing=$$(for need in /usr/sbin/sshd:openssh-server /usr/sbin/nft:nftables /usr/bin/sudo:sudo /usr/sbin/ip:iproute2; do \
		[ -e $${need%:*} ] || echo $${need#*:}; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ $$(id -u) != 0 ]; then echo "install these and run the tests as root: "$$missing >&2; exit 1; fi; \
	apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

# Their daemons start with the tests' own hosts, never with this machine: RUNLEVEL=1 again.
.PHONY: slurm-packages
slurm-packages: ## what the test of Slurm jobs needs of Debian's packages
	@missing=$$(for need in /usr/sbin/slurmctld:slurmctld /usr/sbin/slurmd:slurmd /usr/bin/sbatch:slurm-client /usr/sbin/munged:munge; do \
		[ -e $${need%:*} ] || echo $${need#*:}; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ $$(id -u) != 0 ]; then echo "install these and run the tests as root: "$$missing >&2; exit 1; fi; \
	apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing

.PHONY: test-slurm
test-slurm: fleet-packages slurm-packages build ## the test of Slurm jobs alone; `make test` has it too
	timeout $(TEST_MINUTES_MAX)m $(CARGO) test --locked --workspace --test fleet -- slurm

.PHONY: test-cgroup2
test-cgroup2: ## limits of tasks on a kernel of its own with cgroup v2 (Debian's user-mode-linux)
	$(CARGO) build --locked --workspace --bins
	tests/cgroup2.sh target/debug/fleetpool

.PHONY: nextest
nextest: build ## the tests alone
ifeq ($(NEXTEST),yes)
	timeout $(TEST_MINUTES_MAX)m $(CARGO) nextest run --locked --workspace
else
	timeout $(TEST_MINUTES_MAX)m $(CARGO) test --locked --workspace --lib --bins --tests --no-fail-fast
endif

# The tests' own packages are installed once, and again when their list changes.
$(VENV)/installed: python/tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $< "maturin>=1.9,<2" mypy
	touch $@

.PHONY: python
python: $(VENV)/installed build ## the Python package, as pip installs it, in $(VENV)
	PATH="$(VENV)/bin:$$PATH" FLEETPOOL_PROFILE=dev $(VENV)/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
		--force-reinstall ./python

.PHONY: pytest
pytest: python ## the tests of the Python package, and CPython's own of its pool
	cd python && $(VENV)/bin/mypy
	cd python/tests && timeout $(TEST_MINUTES_MAX)m $(VENV)/bin/python -m pytest -q -n 3 .

.PHONY: doctest
doctest: ## the examples in the documentation of the code
	timeout $(TEST_MINUTES_MAX)m $(CARGO) test --locked --workspace --doc --quiet

.PHONY: lint
lint: fmt clippy doc layering ## formatting, lints, documentation, layering; licences and bans where cargo-deny is installed
ifeq ($(DENY),yes)
	$(CARGO) deny --locked check bans licenses sources
endif

.PHONY: fmt
fmt:
	$(CARGO) fmt --all --check

.PHONY: clippy
clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Without the cli: its binary and the Rust API are both named fleetpool, and rustdoc would write one over the other.
.PHONY: doc
doc: ## the documentation of the code
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --exclude fleetpool-cli --no-deps

.PHONY: layering
layering: ## who may depend on whom, and what the pure crates may name
	$(CARGO) test --locked --quiet -p fleetpool-tests --test layering

.PHONY: deny
deny: ## licences, banned crates, advisories (needs cargo-deny, and the network for the advisories)
	$(CARGO) deny --locked check

.PHONY: sim
sim: ## many simulated worlds (SEEDS=100000); a failing one prints its seed
	FLEETPOOL_SIM_SEEDS=$(SEEDS) $(CARGO) test --locked --release -p fleetpool-tests --test sim -- --nocapture

.PHONY: sim-scale
sim-scale: ## 10 million simulated tasks on 10,000 hosts, of which 500 are lost
	$(CARGO) test --locked --release -p fleetpool-tests --test sim -- --ignored --nocapture ten_million

MINUTES ?= 5
.PHONY: chaos
chaos: ## kills, stops and cuts off real processes at work (MINUTES=20 SEED=1), and checks all that happened
	$(CARGO) build --locked --release --workspace --bins
	$(or $(CARGO_TARGET_DIR),target)/release/chaos run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# One at a time, so that none is another's load; `stopped` sleeps, and its tests do so together.
.PHONY: faults
faults: fleet-packages python ## the faults of docs/faults.md at full length, and their figures: many minutes
	FLEETPOOL_DEATH_SECONDS=60 FLEETPOOL_RESULTS_MIB=10240 FLEETPOOL_INPUT_MIB=8192 FLEETPOOL_LINE_SECONDS=60 \
		FLEETPOOL_RECOVERY_TASKS=1000000 \
		$(CARGO) test --locked --workspace --test pool --test overload --test hostile --test recovery --test fleet -- \
		--nocapture --test-threads=1 g5_twenty_kills g6_a_ g7_ every_fifth very_many_functions what_lets_ssh
	cd python/tests && FLEETPOOL_DEATH_SECONDS=60 FLEETPOOL_ARGUMENT_MIB=8192 $(VENV)/bin/python -m pytest -q \
		-o timeout=600 -o faulthandler_timeout=700 -k "twenty_kills or too_large or caller_is_killed" test_losses.py test_errors.py
	for seconds in 60 120; do FLEETPOOL_STOP_SECONDS=$$seconds \
		$(CARGO) test --locked --workspace --test stopped -- --nocapture longer a_task_that_is_stopped || exit 1; done

.PHONY: sim-mutants
sim-mutants: ## plants one bug after another in the cores; the simulator must find each, and says the seed
	$(CARGO) test --locked -p fleetpool-tests --test sim -- --nocapture found

# A decoder and how long libFuzzer looks at it. Stable Rust has what it needs (and a C++ compiler is needed as well); what
# it learns stays in target/fuzz/corpus. An input that does harm is named at the end: keep it in tests/fuzz/found/TARGET.
TARGET ?= hello
SECONDS ?= 60
FUZZ_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/fuzz
FUZZ_HOST := $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_RUSTFLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions=on -Coverflow-checks=on

.PHONY: fuzz
fuzz: ## a decoder under libFuzzer: TARGET=hello (tests/fuzz/src/lib.rs lists them), SECONDS=60
	RUSTFLAGS="$(FUZZ_RUSTFLAGS)" $(CARGO) build --locked --manifest-path tests/fuzz/guided/Cargo.toml --target $(FUZZ_HOST) \
		--target-dir $(FUZZ_DIR)
	mkdir -p $(FUZZ_DIR)/seeds/$(TARGET) $(FUZZ_DIR)/corpus/$(TARGET) $(FUZZ_DIR)/found tests/fuzz/found/$(TARGET)
	FLEETPOOL_FUZZ=$(TARGET) FLEETPOOL_FUZZ_SEEDS=$(FUZZ_DIR)/seeds/$(TARGET) $(FUZZ_DIR)/$(FUZZ_HOST)/debug/fleetpool-fuzz-guided
	FLEETPOOL_FUZZ=$(TARGET) $(FUZZ_DIR)/$(FUZZ_HOST)/debug/fleetpool-fuzz-guided -max_total_time=$(SECONDS) -timeout=10 -max_len=16384 \
		-rss_limit_mb=512 -artifact_prefix=$(FUZZ_DIR)/found/$(TARGET)- -print_final_stats=1 \
		$(FUZZ_DIR)/corpus/$(TARGET) $(FUZZ_DIR)/seeds/$(TARGET) tests/fuzz/found/$(TARGET)
	-rmdir --ignore-fail-on-non-empty tests/fuzz/found/$(TARGET) tests/fuzz/found

.PHONY: bench
bench: bench-rust bench-python ## the tables of figures against peers (see docs/bench.md)

.PHONY: bench-rust
bench-rust: ## the first of them: commands, native workers, the coordinator; CASES="a c" for some
	$(CARGO) build --locked --release -p fleetpool-cli
	$(CARGO) bench --locked -p fleetpool-tests --bench figures -- $(CASES)

$(BENCH_VENV)/installed: python/bench/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check -r $< "maturin>=1.9,<2"
	touch $@

.PHONY: bench-python
bench-python: $(BENCH_VENV)/installed ## the second: the Python package; CASES="a c" for some
	PATH="$(BENCH_VENV)/bin:$$PATH" $(BENCH_VENV)/bin/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
		--force-reinstall ./python
	$(BENCH_VENV)/bin/python python/bench/pool.py --cluster loopback $(CASES)

# What is shipped; DEB_PROFILE=release is quicker to build.
DEB_PROFILE ?= dist
BUILT = $(or $(CARGO_TARGET_DIR),target)/$(DEB_PROFILE)

.PHONY: deb
deb: ## a Debian package of the binary, in target/debian (needs cargo-deb, dpkg-dev and binutils)
	$(CARGO) build --locked --profile $(DEB_PROFILE) -p fleetpool-cli
	$(MAKE) --no-print-directory deb-of-built

.PHONY: deb-of-built
deb-of-built: # the same of the binary that is there
	mkdir -p $(BUILT)/completions
	$(BUILT)/fleetpool completions bash >$(BUILT)/completions/fleetpool.bash
	$(BUILT)/fleetpool completions zsh >$(BUILT)/completions/_fleetpool
	$(BUILT)/fleetpool completions fish >$(BUILT)/completions/fleetpool.fish
	$(CARGO) deb --locked --no-build --strip --profile $(DEB_PROFILE) -p fleetpool-cli
