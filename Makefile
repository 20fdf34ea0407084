# What people call. Every target says what it needs; `make test` and `make demo` need Debian or
# Ubuntu, Rust and root. CONTRIBUTING.md lists them by time and need.

RUST_VERSION := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
CARGO_VERSION := $(shell cargo --version 2>/dev/null | cut -d ' ' -f 2)
ifeq ($(CARGO_VERSION),)
$(error cargo is missing: install Rust $(RUST_VERSION) or newer with rustup, https://rustup.rs)
endif
ifneq ($(RUST_VERSION),$(shell printf '%s\n' $(RUST_VERSION) $(CARGO_VERSION) | sort -V | head -n 1))
$(error cargo $(CARGO_VERSION) is too old: Rust $(RUST_VERSION) or newer is needed (rustup update stable))
endif

# An explicit target makes crt-static hold for the binaries alone, not for build scripts.
TARGET ?= $(shell uname -m)-unknown-linux-gnu
RELEASE = target/$(TARGET)/release
# One static file. At a fixed address it needs no relocations: a tenth of its size and of the time
# that a call takes to start, against the randomised address of a program without unsafe code.
STATIC = -C target-feature=+crt-static -C relocation-model=static $(REMAP)
# The same bytes wherever they are built: panics name sources.
REMAP = --remap-path-prefix=$(CURDIR)=/src --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
# What the tests and the demo use besides Rust.
PACKAGES = gcc libc6-dev iproute2 procps s3fs
TEST_PACKAGES = $(PACKAGES) busybox-static debootstrap golang-github-containers-common rpm runc strace \
	systemd-container util-linux
# Tests that need root are marked as ignored; in CI nothing may be left out.
IGNORED = $(if $(or $(CI),$(shell [ "$$(id -u)" = 0 ] && [ -c /dev/fuse ] && echo yes)),--include-ignored)

# The ossfs that the tests mount with, instead of s3fs in its place. Nothing installs it.
override export OSSFS := $(abspath $(OSSFS))

.PHONY: build
build: ## Release binaries at dist/: static files for any node
	# One by one: together, each would get the features that the other asks of a crate.
	RUSTFLAGS="$(STATIC)" cargo build --locked --release --target $(TARGET) --package oss
	RUSTFLAGS="$(STATIC)" cargo build --locked --release --target $(TARGET) --package oss-installer
	install -D $(RELEASE)/oss $(RELEASE)/oss-installer --target-directory dist

.PHONY: test
test: test-packages build ## All tests, mounts by s3fs or OSSFS=/usr/path/to/ossfs included (root, /dev/fuse; else those are ignored)
	cargo test --locked --workspace --exclude alicloud-oss-flexvolume --no-fail-fast -- $(IGNORED)
	@if command -v go >/dev/null; then $(MAKE) conformance KUBERNETES=newest; \
	else echo "skipped: kubelet's own code as the caller: Go is needed"; [ "$$CI" != true ]; fi

.PHONY: test-unprivileged
test-unprivileged: ## The tests that need neither root nor /dev/fuse
	cargo test --locked --workspace --no-fail-fast

.PHONY: demo
demo: packages build ## The driver called as kubelet calls it, on a store on loopback or a real bucket (OSSFS=)
	cargo build --locked --package store --bin s3-store
	tests/demo.sh dist/oss target/debug/s3-store

.PHONY: bench
bench: test-packages build ## Times side by side with the bare tools; writes tests/bench/README.md (root)
	cargo build --locked --release --package bench --package store
	target/release/bench --driver dist/oss --store target/release/s3-store --write

.PHONY: instructions
instructions: packages build ## Instruction counts of some calls against tests/bench/instructions.json (root)
	@$(call install,valgrind)
	cargo build --locked --release --package bench --package store
	target/release/bench --driver dist/oss --store target/release/s3-store --check-instructions

# How long, and from which seed; empty for a random one, which is printed.
MINUTES ?= 60
SEED ?=

.PHONY: soak
soak: packages build ## Pods, kills, faults and upgrades at random for MINUTES (60), from SEED (root)
	cargo build --locked --package soak
	target/debug/soak --driver dist/oss --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

.PHONY: mutants
mutants: packages ## Drivers that are broken on purpose, each of which the tests must find out (root, ten minutes)
	@$(call install,patch)
	tests/mutants.sh

# Kubernetes versions of the conformance tests; empty for all.
KUBERNETES ?=

# The daemon of the cluster's volumes instead of s3fs, an absolute path; and SYSTEMD=no for a driver that
# does without systemd.
OSSFS ?=
SYSTEMD ?=

.PHONY: e2e
e2e: test-packages build ## Pods on a real cluster of one node (root, Go; builds Kubernetes the first time)
	cargo build --locked --package e2e
	target/debug/e2e $(if $(OSSFS),--ossfs $(OSSFS)) $(if $(filter no,$(SYSTEMD)),--no-systemd)

.PHONY: conformance
conformance: packages build ## kubelet's own FlexVolume code as the caller (root, Go)
	cargo build --locked --package store --bin s3-store
	OSS_DRIVER=$(CURDIR)/dist/oss OSS_INSTALLER=$(CURDIR)/dist/oss-installer \
		OSS_S3_STORE=$(CURDIR)/target/debug/s3-store tests/kubelet/run $(KUBERNETES)

FUZZ_SECONDS ?= 30
FUZZ_TARGETS = options_json other_opts mountinfo config relay
COVERAGE = sanitizer-coverage
FUZZ_FLAGS = --cfg fuzzing -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cpasses=sancov-module \
	-Cllvm-args=-$(COVERAGE)-level=4 -Cllvm-args=-$(COVERAGE)-inline-8bit-counters \
	-Cllvm-args=-$(COVERAGE)-pc-table -Cllvm-args=-$(COVERAGE)-trace-compares

.PHONY: fuzz
fuzz: ## The fuzz targets, FUZZ_SECONDS (30) each; a finding is left in target/fuzz (needs a C++ compiler)
	RUSTFLAGS="$(FUZZ_FLAGS)" cargo build --locked --release --manifest-path tests/fuzz/Cargo.toml \
		--target $(TARGET) --target-dir target/fuzz
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p target/fuzz/corpus/$$target && \
		target/fuzz/$(TARGET)/release/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=512 \
			-verbosity=0 -print_final_stats=1 -artifact_prefix=target/fuzz/$$target- \
			target/fuzz/corpus/$$target tests/fuzz/corpus/$$target || exit 1; \
	done

include packaging/packages.mk lint.mk

.PHONY: packages test-packages
packages: ; @$(call install,$(PACKAGES))
test-packages: ; @$(call install,$(TEST_PACKAGES))

# Installs those of the given packages that are missing; only root on Debian or Ubuntu can.
define install
missing=$$(for p in $(1); do \
  dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null | grep -qx installed || echo $$p; done); \
if [ -z "$$missing" ]; then exit 0; fi; \
if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
  echo "missing, and not installed (root on Debian or Ubuntu is needed):" $$missing; exit 0; fi; \
apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing
endef
