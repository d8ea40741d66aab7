#!/usr/bin/env bash
# Builds the static programs and writes the container image into an OCI layout; then judges it by our own policy.
# `make image` calls it. Another platform is another target, with a linker for it, and the C library of that platform
# itself: the one named libc6-dev-arm64-cross gets no security updates.
#   rustup target add aarch64-unknown-linux-gnu; dpkg --add-architecture arm64; apt-get update
#   apt-get install --no-install-recommends gcc-aarch64-linux-gnu libc6-dev:arm64
#   IMAGE_TARGETS="x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu" make image
#
# The same commit gives the same digest, in whatever folder and for whomever it is built, as long as the toolchain
# (rust-toolchain.toml) and the Debian packages are the same: gcc, libc6-dev and ca-certificates. To see it, build it
# twice (from another clone, with another CARGO_TARGET_DIR) and compare the digests that it says.
set -euo pipefail
cd "$(dirname "$0")/.."
# Lists have one order, whatever language is spoken here.
export LC_ALL=C

read -ra targets <<<"${IMAGE_TARGETS:-x86_64-unknown-linux-gnu}"
# `IMAGE_PROFILE=dev` is quicker, for work on this script; what is pushed is a release.
profile=${IMAGE_PROFILE:-release}
target_dir=$(realpath -ms "${CARGO_TARGET_DIR:-target}")
out=${IMAGE_DIR:-$target_dir/image}
revision=${TIDEWAITER_REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
cargo_home=$(realpath -ms "${CARGO_HOME:-$HOME/.cargo}")

# glibc is linked in: names are resolved by `files` and `dns`, which are part of it and open no library. Randomness comes
# from /dev/urandom, which every runtime puts into a container.
rust_flags=(-C target-feature=+crt-static)
c_flags=()
# Where things lie on this machine is nobody's business, and would make another machine's image another image: each
# folder has one name everywhere. Where several fit, the last one counts.
sysroot=$(rustc --print sysroot)
private=("${HOME:-/}" "$sysroot")
remap() {
  local folder
  # As it is called, and where it is.
  for folder in "$1" "$(realpath -m "$1")"; do
    rust_flags+=("--remap-path-prefix=$folder=$2")
    c_flags+=("-ffile-prefix-map=$folder=$2")
    [[ $folder == "$2" ]] || private+=("$folder")
  done
}
remap "$sysroot/lib/rustlib/src/rust" "/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')"
remap "$PWD" /src
remap "$target_dir" /target
remap "$cargo_home" /cargo
# The folder of the crates has the name of where they came from: with a mirror, another one.
cargo fetch --locked --quiet "${targets[@]/#/--target=}"
for crates in "$cargo_home"/registry/src/*; do remap "$crates" /cargo; done
for_rust=$(IFS=$'\x1f' && echo "${rust_flags[*]}")
for_c=$(printf '%q ' "${c_flags[@]}")
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}

# What comes from the distribution, for the bill of materials: SCOPE FILE LICENCE, the package being the file's.
foreign=()
package() {
  local owner name version
  # As `libc6-dev:arm64: PATH`: the same package may be here for several platforms.
  owner=$(dpkg-query -S "$(realpath "$2")")
  owner=${owner%%: *} name=${owner%%:*}
  version=$(dpkg-query -W -f '${Version}' "$owner")
  foreign+=(--foreign "$1/$name=$version=$3=/usr/share/doc/$name/copyright")
}
package any /usr/sbin/update-ca-certificates "MPL-2.0 AND GPL-2.0-or-later"
# The authorities of that package, and none that this machine was told to trust beside them: those are in its own list.
mkdir -p "$target_dir"
authorities=$target_dir/authorities.pem
dpkg-query -L ca-certificates | grep '\.crt$' | sort | xargs -d '\n' cat >"$authorities"

programs=()
for target in "${targets[@]}"; do
  compiler=gcc
  [[ $target == x86_64-* ]] || compiler=${target/-unknown/}-gcc
  package "$target" "$("$compiler" -print-file-name=libc.a)" "LGPL-2.1-or-later"
  package "$target" "$("$compiler" -print-file-name=libgcc_eh.a)" "GPL-3.0-or-later WITH GCC-exception-3.1"
  program=$target_dir/$target/${profile/%dev/debug}/tidewaiter
  CARGO_ENCODED_RUSTFLAGS=$for_rust CC_SHELL_ESCAPED_FLAGS=1 CFLAGS=$for_c TIDEWAITER_REVISION=$revision \
    cargo build --locked --profile "$profile" --target "$target" --bin tidewaiter
  for folder in "${private[@]}"; do
    [[ $folder != / ]] || continue
    pattern="\\Q$folder\\E"
    # A folder right below the root, as `/app`, is part of other words too: of `src/app/mod.rs`.
    [[ $folder == /*/* ]] || pattern="(?<![[:alnum:]])$pattern/"
    found=0
    told=$(grep -aoP -m1 "$pattern[[:print:]]{0,99}" "$program") || found=$?
    if [[ $found -ne 1 ]]; then
      echo "error: the program names a folder of this machine, to which image/build.sh gives no other name: $told" >&2
      exit 1
    fi
  done
  programs+=(--program "$target=$program")
done
cargo run --locked --quiet --example image -- --out "$out" --revision "$revision" --authorities "$authorities" \
  "${foreign[@]}" "${programs[@]}"

# What we ask of others' images: the program in the image judges the layout that it lies in.
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
judge=$target_dir/${targets[0]}/${profile/%dev/debug}/tidewaiter
"$judge" check "oci:$out:$version" --as "ghcr.io/tidewaiter/tidewaiter:$version" --policy image/policy.yaml
# And it runs as the chart runs it: alone in its root, which it cannot write, as its user without a right.
if [[ $(id -u) -eq 0 && ${targets[0]} == "$(rustc -vV | sed -n 's/^host: //p')" ]]; then
  TIDEWAITER_IMAGE=$(realpath "$out") cargo test --locked --quiet --test chart -- rooted
fi
echo "push it:  skopeo copy --all oci:$out:$version docker://REGISTRY/tidewaiter:$version"
