# What people call. Every target says what it needs; `make test` and `make demo` need Debian or
# Ubuntu, Rust and root.

# An explicit target makes crt-static hold for the binaries alone, not for build scripts.
TARGET ?= $(shell uname -m)-unknown-linux-gnu
RELEASE = target/$(TARGET)/release
# What the tests and the demo use besides Rust.
PACKAGES = gcc libc6-dev iproute2 s3fs
TEST_PACKAGES = $(PACKAGES) debootstrap systemd-container util-linux
# Tests that need root are marked as ignored; in CI nothing may be left out.
IGNORED = $(if $(or $(CI),$(shell [ "$$(id -u)" = 0 ] && [ -c /dev/fuse ] && echo yes)),--include-ignored)

.PHONY: build
build: ## Release binaries at dist/: one static file for any node
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $(TARGET) --package oss
	install -D $(RELEASE)/oss dist/oss

.PHONY: test
test: test-packages ## All tests, real mounts included (root and /dev/fuse; else those are ignored)
	cargo test --locked --workspace --no-fail-fast -- $(IGNORED)

.PHONY: demo
demo: packages build ## The driver called as kubelet calls it, on a store on loopback or a real bucket
	cargo build --locked --package store --bin s3-store
	tests/demo.sh dist/oss target/debug/s3-store

.PHONY: lint
lint: ## Formatting and clippy, without a warning
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

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
