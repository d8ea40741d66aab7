#!/usr/bin/env bash
# Builds the static programs and writes the container image into an OCI layout; then judges it by our own policy.
# `make image` calls it. Another platform is another target, with a linker for it:
#   rustup target add aarch64-unknown-linux-gnu; apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross
#   IMAGE_TARGETS="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu" make image
set -euo pipefail
cd "$(dirname "$0")/.."

read -ra targets <<<"${IMAGE_TARGETS:-x86_64-unknown-linux-gnu}"
target_dir=${CARGO_TARGET_DIR:-target}
out=${IMAGE_DIR:-$target_dir/image}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# Where things lie on this machine is nobody's business, and would make another machine's image another image.
RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/src --remap-path-prefix=$cargo_home=/cargo"
CFLAGS="-ffile-prefix-map=$PWD=/src -ffile-prefix-map=$cargo_home=/cargo"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}

programs=()
for target in "${targets[@]}"; do
  RUSTFLAGS=$RUSTFLAGS CFLAGS=$CFLAGS TIDEWAITER_REVISION=$revision \
    cargo build --locked --release --target "$target" --bin tidewaiter
  programs+=(--program "$target=$target_dir/$target/release/tidewaiter")
done
cargo run --locked --quiet --example image -- --out "$out" --revision "$revision" "${programs[@]}"

# What we ask of others' images: the program in the image judges the layout that it lies in.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
judge=$target_dir/${targets[0]}/release/tidewaiter
"$judge" check "oci:$out:$version" --as "ghcr.io/tidewaiter/tidewaiter:$version" --policy image/policy.yaml
echo "push it:  skopeo copy --all oci:$out:$version docker://REGISTRY/tidewaiter:$version"
