#!/usr/bin/env bash
# Breaks the driver on purpose, in one way after the other (tests/mutants/*.patch), and demands that the
# tests through real mounts find each out.
#
# usage: mutants.sh [NAME…]   (root; run by `make mutants`)
set -euo pipefail

project=$(realpath "$(dirname "$0")/..")
cd "$project"
copy=$(mktemp -d /tmp/oss-mutants.XXXXXX)
trap 'rm -rf --one-file-system "$copy"' EXIT
missed=0

[ $# -gt 0 ] || set -- $(cd tests/mutants && ls -- *.patch)
for name in "${@%.patch}"; do
  find "$copy" -mindepth 1 -delete
  git ls-files -z | xargs -0 cp --parents --target-directory "$copy"
  patch --quiet --directory "$copy" --strip 1 <"tests/mutants/$name.patch"
  log=$copy/log
  # One that leaves mounts may have a test wait for ever.
  if (cd "$copy" && CARGO_TARGET_DIR=$project/target/mutants timeout 600 cargo test --locked --package oss --no-fail-fast \
    --test mount --test failures -- --include-ignored) >"$log" 2>&1; then
    echo "$name: no test has found it"
    missed=1
  elif ! grep -q '^test .* FAILED$' "$log"; then
    cat "$log"
    echo "$name: the tests did not run"
    missed=1
  else
    echo "$name: found by $(grep -c '^test .* FAILED$' "$log") tests, for instance" \
      "$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | head -n 1)"
  fi
done
exit $missed
