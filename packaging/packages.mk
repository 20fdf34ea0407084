# What packaging/ makes of dist/; included by the Makefile of the repository, where TARGET is.

# Of the last commit, so that the same sources make the same files.
EPOCH = $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
REVISION = $(shell git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)
IMAGE ?= dist/oss-image.tar
IMAGE_ARCH = $(if $(filter aarch64-%,$(TARGET)),arm64,amd64)
CARGO_DEB = cargo-deb@3.8.0
CARGO_GENERATE_RPM = cargo-generate-rpm@0.21.1
TOOLS = target/tools/bin

.PHONY: image
image: ## The installer's image as an OCI archive, dist/oss-image.tar (root; no registry is asked)
	@$(call install,buildah)
	$(MAKE) build
	$(MAKE) image-of-dist

.PHONY: image-of-dist
image-of-dist:
	storage=$$(mktemp -d) && trap 'rm -rf "$$storage"' EXIT && rm -f $(IMAGE) && \
	buildah --root "$$storage/root" --runroot "$$storage/run" --storage-driver vfs \
		build-using-dockerfile --quiet --isolation chroot --squash --timestamp $(EPOCH) --arch $(IMAGE_ARCH) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) \
		--file packaging/Dockerfile --target prebuilt --tag oci-archive:$(IMAGE):alicloud-oss-flexvolume:$(VERSION) .

.PHONY: node-packages
node-packages: build ## A .deb and an .rpm of driver and installer, in dist/
	cargo install --locked --quiet --root target/tools $(CARGO_DEB)
	cargo install --locked --quiet --root target/tools $(CARGO_GENERATE_RPM)
	rm -f dist/*.deb dist/*.rpm
	SOURCE_DATE_EPOCH=$(EPOCH) $(TOOLS)/cargo-deb --quiet --no-build --no-strip --target $(TARGET) \
		--package alicloud-oss-flexvolume --output dist/
	SOURCE_DATE_EPOCH=$(EPOCH) $(TOOLS)/cargo-generate-rpm generate-rpm --package packaging \
		--arch $(firstword $(subst -, ,$(TARGET))) --payload-compress gzip --output dist/

.PHONY: package-test
package-test: ## The image, and both packages on a node with systemd (root)
	@$(call install,$(TEST_PACKAGES) buildah lintian mandoc rpm shellcheck)
	$(MAKE) image node-packages
	mandoc -T lint -W warning packaging/*.8
	shellcheck --severity=warning packaging/scripts/*
	lintian --allow-root --fail-on error dist/*.deb
	PATH="$(CURDIR)/$(TOOLS):$$PATH" cargo test --locked --package alicloud-oss-flexvolume -- --include-ignored

.PHONY: manifests
manifests: build ## Overlays, chart and examples against the API server's own code (Go)
	@if command -v go >/dev/null; then \
		cd tests/manifests && OSS_DRIVER=$(CURDIR)/dist/oss go test -count=1 ./...; \
	else echo "skipped: Go is needed"; [ "$$CI" != true ]; fi
