#!/usr/bin/env bash
# Fetches what compiles the kernels, where no CUDA toolkit is installed: nvcc and CUDA's runtime, of the package index, in a
# folder of their own (about 320 MB). Nothing of the system changes, no GPU, driver or root is needed. Used by `make cuda`.
#
# Usage: scripts/cuda-toolkit.sh FOLDER      FOLDER/bin/nvcc, FOLDER/include, FOLDER/lib64, as in /usr/local/cuda
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# != 1 || $1 == -* ]]; then
  sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
  [[ ${1:-} == -h || ${1:-} == --help ]] && exit 0 || exit 2
fi
folder=$(realpath -m "$1")
python=python3
[[ -x .venv/bin/python ]] && python=.venv/bin/python

# All of one release, CUDA 13.0: pip would take the newest parts beside an older compiler. CCCL has a header of cuda_fp16.h.
rm -rf "$folder" && mkdir -p "$folder"
"$python" -m pip install --disable-pip-version-check --quiet --no-compile --no-deps --only-binary :all: --target "$folder/wheels" \
  nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 \
  nvidia-cuda-cccl==13.0.85
mv "$folder"/wheels/nvidia/cu13/* "$folder" && rm -r "$folder/wheels"
# Wheels hold no links, by which CMake and a linker find the parts; the cross build names the folder of the machine.
ln -s lib "$folder/lib64"
ln -s libcudart.so.13 "$folder/lib/libcudart.so"
machine=$folder/targets/$(uname -m)-linux
mkdir -p "$machine" && ln -s ../../include ../../lib "$machine"
"$folder/bin/nvcc" --version
