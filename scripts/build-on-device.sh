#!/usr/bin/env bash
# Builds the native libraries on the machine that will run them (Jetson with JetPack 6 or 7, or any Linux machine with
# the CUDA toolkit), for its own GPU, CUDA and TensorRT, and runs the plugin's C++ test.
#
# Usage: scripts/build-on-device.sh [OUTPUT [CMAKE_OPTION]...]
#   OUTPUT  where runtime/lib/*.so go (default: dist/device). To use them from Python, `pip install .` builds the same.
# Environment: CUDACXX, nvcc where it is neither on PATH nor in /usr/local/cuda; AVSBG_CUDA_ARCHITECTURES (default: that
# of this machine's GPU).
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} == -* ]]; then
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
  [[ $1 == -h || $1 == --help ]] && exit 0 || exit 2
fi
output=$(realpath -m "${1:-dist/device}")
shift || true
build=build/device

for command in cmake g++; do
  if ! command -v "$command" >/dev/null; then
    echo "error: $command is not installed. On JetPack and Ubuntu: sudo apt-get install cmake g++" >&2
    exit 1
  fi
done
nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
if ! "$nvcc" --version >/dev/null 2>&1; then
  echo "error: no CUDA compiler: $nvcc does not run. On JetPack: sudo apt-get install nvidia-jetpack" >&2
  exit 1
fi

# The GPU's architecture: Jetson names its chip in the device tree, other machines ask the driver.
gpu_architecture() {
  if [[ -r /proc/device-tree/compatible ]]; then
    case $(tr '\0' ' ' </proc/device-tree/compatible) in
      *tegra234*) echo 87 && return ;;
      *tegra264*) echo 110 && return ;;
    esac
  fi
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d '. ' | sort -u | paste -sd ';'
}
architectures=${AVSBG_CUDA_ARCHITECTURES:-$(gpu_architecture || true)}
if [[ ! $architectures =~ ^[0-9]+(;[0-9]+)*$ ]]; then
  echo "error: this machine's GPU was not recognised (${architectures:-no answer from nvidia-smi})." >&2
  echo "       Name its compute capability without the dot, e.g. AVSBG_CUDA_ARCHITECTURES=87 for Orin." >&2
  exit 1
fi
[[ -r /etc/nv_tegra_release ]] && head -n 1 /etc/nv_tegra_release
echo "-- building for sm_${architectures//;/ sm_} with $nvcc"

CUDACXX=$nvcc cmake -S . -B "$build" -DAVSBG_CUDA_ARCHITECTURES="$architectures" -DAVSBG_BUILD_TESTS=ON "$@"
cmake --build "$build" --parallel "$(nproc)"
# Without the plugin there is no test: an error, since the plugin is what this script is for.
ctest --test-dir "$build" --output-on-failure --no-tests=error
cmake --install "$build" --prefix "$output"
echo "built and tested: $output/runtime/lib"
