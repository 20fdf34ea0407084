# What `make lint` and `make audit` call; included by the Makefile.

# Compiled without optimisation: it runs for a second, and is built in a third of the time.
CARGO_DENY = cargo-deny@0.20.2
ACTIONLINT = github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

.PHONY: lint
lint: format clippy imports documents documentation licences workflows ## Everything below, without a warning (Go)

.PHONY: format clippy imports documents documentation
format:
	cargo fmt --all --check
clippy:
	cargo clippy --locked --workspace --all-targets -- -D warnings
imports: ## No files of a crate import each other in a circle
	cargo run --locked --quiet --package lint -- src/lib.rs src/main.rs installer/src/main.rs
documents: ## Files that a document names are there
	cargo run --locked --quiet --package lint -- $(shell git ls-files '*.md')
documentation: ## The documentation of all items, in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

.PHONY: licences
licences: cargo-deny ## Bans, licences and sources of all crates, by deny.toml
	$(DENY) check --allow license-exception-not-encountered bans licenses sources
	$(DENY) --manifest-path tests/fuzz/Cargo.toml check licenses sources

.PHONY: audit
audit: cargo-deny ## Known vulnerabilities and yanked crates (a database from the network)
	$(DENY) check advisories

DENY = $(TOOLS)/cargo-deny --locked
.PHONY: cargo-deny
cargo-deny:
	CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --quiet --debug --root target/tools $(CARGO_DENY)

.PHONY: workflows
workflows: ## The workflows of .github, by actionlint (Go)
	@if command -v go >/dev/null; then go run $(ACTIONLINT) -shellcheck= -pyflakes=; \
	else echo "skipped: the workflows: Go is needed"; [ "$$CI" != true ]; fi
