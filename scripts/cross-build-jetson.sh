#!/usr/bin/env bash
# Builds the native libraries for Jetson (aarch64) on an x86-64 machine with the CUDA toolkit, and runs the plugin's C++
# test on the result in emulation. For the CUDA major version of the toolkit: CUDA 13 is JetPack 7 (Orin and Thor).
#
# Usage: scripts/cross-build-jetson.sh [--install-packages] [OUTPUT]
#   OUTPUT              where runtime/lib/*.so go (default: dist/jetson)
#   --install-packages  first install what is missing with apt-get: the cross compiler, qemu-user, cmake, ninja, pip
# Environment: CUDACXX, nvcc where it is not on PATH; AVSBG_JETSON_ARCHITECTURES (default 87;110); AVSBG_TENSORRT_HEADERS,
# a folder with the TensorRT headers of the device (default: those of TensorRT 10.14, which serve 10.3 to 11).
set -euo pipefail
cd "$(dirname "$0")/.."

install_packages=false
if [[ ${1:-} == --install-packages ]]; then
  install_packages=true
  shift
fi
if [[ ${1:-} == -* ]]; then
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
  [[ $1 == -h || $1 == --help ]] && exit 0 || exit 2
fi
output=$(realpath -m "${1:-dist/jetson}")
build=build/jetson

declare -A package_of=(
  [aarch64-linux-gnu-g++]=g++-aarch64-linux-gnu [qemu-aarch64]=qemu-user [cmake]=cmake [ninja]=ninja-build [python3]=python3
)
missing=()
for command in "${!package_of[@]}"; do
  command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
if ((${#missing[@]})); then
  if ! $install_packages; then
    echo "error: not installed: ${missing[*]}. Install them with: apt-get install ${missing[*]}" >&2
    echo "       or let this script do it: scripts/cross-build-jetson.sh --install-packages" >&2
    exit 1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
if ! cuda=$("$nvcc" --version 2>/dev/null | sed -n 's/.*release \([0-9]*\.[0-9]*\).*/\1/p') || [[ -z $cuda ]]; then
  echo "error: no CUDA compiler: $nvcc does not run. Install the CUDA toolkit or set CUDACXX to its nvcc." >&2
  exit 1
fi
if [[ ${cuda%%.*} -lt 13 ]]; then
  echo "error: nvcc is of CUDA $cuda; this builds for JetPack 7 with CUDA 13. For JetPack 6 (CUDA 12.6) build on the" >&2
  echo "       device: scripts/build-on-device.sh" >&2
  exit 1
fi

# The aarch64 half of the CUDA runtime, which an x86-64 toolkit lacks, of the same version.
cudart=$build/cudart-$cuda
if [[ ! -e $cudart/nvidia/cu13/lib/libcudart_static.a ]]; then
  echo "-- fetching the aarch64 CUDA runtime $cuda with pip"
  python=python3
  [[ -x .venv/bin/python ]] && python=.venv/bin/python
  "$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$cudart" \
    --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 "nvidia-cuda-runtime==$cuda.*"
  "$python" -m zipfile -e "$cudart"/nvidia_cuda_runtime-*aarch64.whl "$cudart"
fi

export AVSBG_AARCH64_CUDART=$PWD/$cudart/nvidia/cu13/lib CUDACXX=$nvcc
cmake -S . -B "$build" -G Ninja --toolchain cmake/toolchains/aarch64-linux-gnu.cmake \
  -DAVSBG_CUDA_ARCHITECTURES="${AVSBG_JETSON_ARCHITECTURES:-87;110}" \
  -DAVSBG_TENSORRT_INCLUDE_DIR="${AVSBG_TENSORRT_HEADERS:-}" \
  -DAVSBG_BUILD_TESTS=ON -DAVSBG_WARNINGS_AS_ERRORS=ON
cmake --build "$build"
ctest --test-dir "$build" --output-on-failure --no-tests=error
cmake --install "$build" --prefix "$output"
echo "built for JetPack 7 (CUDA $cuda), tested in emulation: $output/runtime/lib"
