#!/usr/bin/env bash
# Builds the static programs and writes the container image into an OCI layout; then judges it by our own policy.
# `make image` calls it. Another platform is another target, with a linker for it:
#   rustup target add aarch64-unknown-linux-gnu; apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross
#   IMAGE_TARGETS="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu" make image
set -euo pipefail
cd "$(dirname "$0")/.."

read -ra targets <<<"${IMAGE_TARGETS:-x86_64-unknown-linux-gnu}"
# `IMAGE_PROFILE=dev` is quicker, for work on this script; what is pushed is a release.
profile=${IMAGE_PROFILE:-release}
target_dir=${CARGO_TARGET_DIR:-target}
out=${IMAGE_DIR:-$target_dir/image}
revision=${TIDEWAITER_REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# Where things lie on this machine is nobody's business, and would make another machine's image another image.
# glibc is linked in: names are resolved by `files` and `dns`, which are part of it and open no library. Randomness comes
# from /dev/urandom, which every runtime puts into a container.
RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$PWD=/src --remap-path-prefix=$cargo_home=/cargo"
CFLAGS="-ffile-prefix-map=$PWD=/src -ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$(realpath -m "$target_dir")=/target"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}

# What comes from the distribution, for the bill of materials: SCOPE FILE LICENCE, the package being the file's.
foreign=()
package() {
  local name version
  name=$(dpkg-query -S "$(realpath "$2")" | head -1 | sed 's/:.*//')
  version=$(dpkg-query -W -f '${Version}' "$name" | head -1)
  foreign+=(--foreign "$1/$name=$version=$3=/usr/share/doc/$name/copyright")
}
package any /usr/sbin/update-ca-certificates "MPL-2.0 AND GPL-2.0-or-later"

programs=()
for target in "${targets[@]}"; do
  compiler=gcc
  [[ $target == x86_64-* ]] || compiler=${target/-unknown/}-gcc
  package "$target" "$("$compiler" -print-file-name=libc.a)" "LGPL-2.1-or-later"
  package "$target" "$("$compiler" -print-file-name=libgcc_eh.a)" "GPL-3.0-or-later WITH GCC-exception-3.1"
  RUSTFLAGS=$RUSTFLAGS CFLAGS=$CFLAGS TIDEWAITER_REVISION=$revision \
    cargo build --locked --profile "$profile" --target "$target" --bin tidewaiter
  programs+=(--program "$target=$target_dir/$target/${profile/%dev/debug}/tidewaiter")
done
cargo run --locked --quiet --example image -- --out "$out" --revision "$revision" "${foreign[@]}" "${programs[@]}"

# What we ask of others' images: the program in the image judges the layout that it lies in.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
judge=$target_dir/${targets[0]}/${profile/%dev/debug}/tidewaiter
"$judge" check "oci:$out:$version" --as "ghcr.io/tidewaiter/tidewaiter:$version" --policy image/policy.yaml
# And it runs as the chart runs it: alone in its root, which it cannot write, as its user without a right.
if [[ $(id -u) -eq 0 && ${targets[0]} == "$(rustc -vV | sed -n 's/^host: //p')" ]]; then
  TIDEWAITER_IMAGE=$(realpath "$out") cargo test --locked --quiet --test chart -- rooted
fi
echo "push it:  skopeo copy --all oci:$out:$version docker://REGISTRY/tidewaiter:$version"
