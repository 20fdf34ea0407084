# What people call; each target does one thing and says what it needs.

# An explicit target makes crt-static hold for the binaries alone, not for build scripts.
TARGET ?= $(shell uname -m)-unknown-linux-gnu
RELEASE = target/$(TARGET)/release

.PHONY: build
build: ## Release binaries at dist/: one static file for any node
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target $(TARGET) --package oss
	install -D $(RELEASE)/oss dist/oss
