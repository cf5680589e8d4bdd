#!/usr/bin/env bash
# Fetches what libavsbg needs to be built for aarch64 on another machine, and to run there in emulation: Debian's zlib,
# OpenSSL and JSON library for arm64, unpacked, and ONNX Runtime's library, of its aarch64 wheel. The system's own
# packages and lists stay as they are, and nothing needs root.
#
# Usage: scripts/aarch64-root.sh FOLDER      FOLDER/root is what cmake/toolchains/aarch64.cmake looks for
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# != 1 || $1 == -* ]]; then
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
  [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0 || exit 2
fi
folder=$(realpath -m "$1")
for command in apt-get dpkg-deb; do
  command -v "$command" >/dev/null || { echo "error: no $command here: it takes a Debian system." >&2; exit 1; }
done
rm -rf "$folder"
mkdir -p "$folder"/{apt/lists/partial,apt/cache/archives/partial,packages,root}

# A list of packages of its own, for arm64 alone.
settings=(-qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root
  -o Dir::State::status=/dev/null -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache"
  -o Acquire::Languages=none)
apt-get "${settings[@]}" update
# The name of OpenSSL's library differs between releases.
openssl=$(apt-cache "${settings[@]}" depends libssl-dev | sed -n 's/^ *Depends: *\(libssl[0-9][^ ]*\)$/\1/p')
(cd "$folder/packages" && apt-get "${settings[@]}" download zlib1g zlib1g-dev "$openssl" libssl-dev nlohmann-json3-dev)
for package in "$folder"/packages/*.deb; do
  dpkg-deb -x "$package" "$folder/root"
done
# If /lib is a link to /usr/lib, and links lead within the root.
cp -a "$folder/root/lib/." "$folder/root/usr/lib"
rm -r "$folder/root/lib"
find "$folder/root" -type l -lname '/*' | while read -r link; do
  target=$(readlink "$link")
  ln -sfn "$folder/root/usr/lib/${target#*/lib/}" "$link"
done

python=python3
[[ -x .venv/bin/python ]] && python=.venv/bin/python
"$python" -m pip download --disable-pip-version-check --quiet --no-deps --only-binary :all: -c constraints.txt \
  --dest "$folder/packages" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 onnxruntime
"$python" -m zipfile -e "$folder"/packages/onnxruntime-*.whl "$folder/wheel"
mv "$folder"/wheel/onnxruntime/capi/libonnxruntime.so.1* "$folder/root/usr/lib/aarch64-linux-gnu/libonnxruntime.so.1"
rm -rf "${folder:?}"/{apt,packages,wheel}

# For qemu-aarch64 -L FOLDER/root: the cross compiler's C library, and a processor, since qemu shows programs that of the
# machine, on which ONNX Runtime would look for an ARM's parts in vain.
ln -s /usr/aarch64-linux-gnu/lib "$folder/root/lib"
mkdir -p "$folder"/root/{proc,sys/devices/system/cpu}
printf 'processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd08\n' \
  >"$folder/root/proc/cpuinfo"
for list in possible present online; do
  echo 0 >"$folder/root/sys/devices/system/cpu/$list"
done
