#!/usr/bin/env bash
# Starts NVIDIA's Triton Inference Server (2.51) from the package nvidia-pytriton, on the loopback, with its Python
# backend alone and on the processor: tritonserver.sh ENVIRONMENT REPOSITORY [OPTION...]
# ENVIRONMENT is a virtual environment with avsbg in it, e.g. .environments/triton of `make environments`.
set -euo pipefail
environment=$(cd "$1" && pwd)
repository=$(cd "$2" && pwd)
shift 2
version=$("$environment/bin/python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
packages=$environment/lib/python$version/site-packages
server=$packages/pytriton/tritonserver
backends=$environment/backends/python
# The backend looks for the interpreter of its models beside itself; the package has one for each version of Python.
if [ ! -e "$backends/triton_python_backend_stub" ]; then
  made=$(mktemp -d "$environment/backends.XXXXXX")
  cp "$server"/backends/python/* "$server/python_backend_stubs/$version/triton_python_backend_stub" "$made/" 2> /dev/null || true
  mkdir -p "$environment/backends"
  mv -T "$made" "$backends" 2> /dev/null || rm -rf "$made" # another process was faster
fi
# The models' interpreter takes the environment of the first python3 in the path, and reads no PYTHONPATH.
export PATH="$environment/bin:$PATH" LD_LIBRARY_PATH="$packages/nvidia_pytriton.libs"
exec "$server/bin/tritonserver" --model-repository="$repository" --backend-directory="$environment/backends" \
  --http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1 "$@"
