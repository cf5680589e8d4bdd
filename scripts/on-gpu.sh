#!/usr/bin/env bash
# Proves the GPU side on hardware in one command of at most eight minutes: the kernels' numbers for every type and
# shape, capture and replay, the plugin without TensorRT, compute-sanitizer, ncu, speed against fair rivals, Table 7 in
# PyTorch. Needs Linux, an NVIDIA GPU, the CUDA toolkit, cmake, and Python with PyTorch for CUDA, pytest and, for Table
# 7, timm; no TensorRT, no network. What is missing is said, and what needs it is skipped; nothing that fails is hidden.
#
# Usage: scripts/on-gpu.sh [--here] [--only STAGE]... [OUT]
#   OUT           a folder for logs, rows and results.json (default: out/gpu); a stage's earlier results are replaced
#   --only STAGE  only this one; may be repeated: machine build kernels plugin ptx operator table7 sanitizers ncu torch
#                 engines trtexec backends
#   --here        everything that needs no GPU: all is compiled, the kernels' tests run on the emulated CUDA, the
#                 programs that measure run on the processor. Before time on a GPU is spent, and in CI.
# Environment: PYTHON (default: .venv/bin/python, else python3); CUDACXX, nvcc where it is not on PATH; AVSBG_WHEELS, a
# folder of wheels to use without installing them (kernel_lens has TensorRT's headers, for the plugin); NO_BUDGET=1, no
# limit for all stages together; AVSBG_POWER_MODES, on a Jetson and as root: numbers of nvpmodel, each of which the engines
# are measured in ("0 2"; by default the one that is set).
# Exit code: 0 when no stage failed or ran out of time; a stage that was skipped has not failed.
set -uo pipefail
cd "$(dirname "$0")/.."

# With the seconds that each may take, in the order of their value; the last line needs a Jetson.
declare -A SECONDS_OF=(
  [machine]=20 [build]=120 [kernels]=80 [plugin]=15 [ptx]=90 [operator]=100 [table7]=130 [sanitizers]=115 [ncu]=60 [torch]=70
  [engines]=2400 [trtexec]=900 [backends]=1800
)
STAGES=(machine build kernels plugin operator table7 sanitizers ncu torch ptx)
BUDGET=470
[[ -r /etc/nv_tegra_release ]] && STAGES+=(engines trtexec backends) && BUDGET=6000

usage() { sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; }
only=() here=0 out=""
while (($#)); do
  case $1 in
    --here) here=1 ;;
    --only) only+=("${2:?--only needs a stage}") && shift ;;
    --stage) stage=$2 && shift ;; # the script's own: one stage, in a process that can be stopped
    -h | --help) usage && exit 0 ;;
    -*) usage && exit 2 ;;
    *) out=$1 ;;
  esac
  shift
done
for name in "${only[@]}"; do
  [[ -n ${SECONDS_OF[$name]:-} ]] && continue
  echo "error: no stage is named $name; there are: ${!SECONDS_OF[*]}" >&2
  exit 2
done
mkdir -p "${out:=out/gpu}" && out=$(realpath "$out")

[[ -n ${PYTHON:-} ]] || { [[ -x .venv/bin/python ]] && PYTHON=$PWD/.venv/bin/python || PYTHON=python3; }
nvcc=${CUDACXX:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
export PYTHONPATH=$PWD:$PWD/tests:$out/site${PYTHONPATH:+:$PYTHONPATH} PATH=$PATH:/usr/local/cuda/bin:/usr/src/tensorrt/bin
kernels=runtime/native/cuda

skip() { echo "SKIPPED: $*" && exit 77; }
needs() { command -v "$1" >/dev/null || skip "$1 was not found${2:+: $2}"; }
needs_modules() { # IMPORT NAMES...
  local missing
  missing=$("$PYTHON" -c 'import importlib.util as i, sys; print(*[n for n in sys.argv[1:] if not i.find_spec(n)])' "$@") ||
    exit 1
  [[ -z $missing ]] || skip "cannot be imported: $missing; install them, or put their wheels in AVSBG_WHEELS"
}
on_gpu() { ((!here)) || skip "needs a GPU"; }
architecture() {
  ((here)) && echo 90 && return
  "$PYTHON" -c 'from avsbg.runtime.device.gpu import read_cuda_driver as r; print(r().gpus[0].compute_capability)'
}

stage_machine() {
  if [[ -n ${AVSBG_WHEELS:-} ]]; then
    "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$out/site" --upgrade "$AVSBG_WHEELS"/*.whl || exit 1
  fi
  "$PYTHON" scripts/gpu/machine.py -o "$out/machine.json" || exit 1
  command -v nvidia-smi >/dev/null && nvidia-smi && nvidia-smi -q -d CLOCK,POWER,PERFORMANCE
  true
}

stage_build() {
  needs "$nvcc" "install the CUDA toolkit or set CUDACXX"
  local arch common jobs=() failed=0
  arch=$(architecture) || exit 1
  common=("$nvcc" -std=c++17 -O3 "-arch=sm_$arch" -lineinfo)
  # Copies of the kernels with one fault each, for the tool that must find it: a barrier gone, a barrier for one warp.
  local barrier='__syncthreads(); *\/\/ so has everyone'
  for fault in racecheck synccheck; do
    rm -rf "$out/$fault" && cp -r "$kernels" "$out/$fault"
    local instead=';' && [[ $fault == synccheck ]] && instead='if (threadIdx.x < 32) __syncthreads();'
    sed -i "s/$barrier/$instead \/\/ so has everyone/" "$out/$fault/correlation.cuh"
    cmp -s "$out/$fault/correlation.cuh" "$kernels/correlation.cuh" && echo "no fault was planted for $fault" && exit 1
  done
  compile() { # NAME FOLDER OPTIONS...
    local name=$1 folder=$2 && shift 2
    "${common[@]}" "$@" "-I$folder" tests/native/gpu/driver.cu "$folder/correlation.cu" -o "$out/$name" \
      >"$out/compile-$name.txt" 2>&1
  }
  compile driver "$kernels" -Xptxas=-v & jobs+=($!)
  "${common[@]}" "-I$kernels" scripts/gpu/rates.cu -o "$out/rates" & jobs+=($!)
  # The kernels as PTX of compute capability 8.0 alone, which the driver translates: what a GPU after the last known gets.
  "$nvcc" -std=c++17 -O3 -shared -Xcompiler=-fPIC,-fvisibility=hidden -gencode arch=compute_80,code=compute_80 \
    "-I$kernels" "$kernels/correlation.cu" "$kernels/avsbg_cuda.cpp" -o "$out/libavsbg_cuda_ptx.so" \
    >"$out/compile-ptx.txt" 2>&1 & jobs+=($!)
  if ((!here)); then
    compile driver-memcheck "$kernels" -DFAULT_MEMCHECK & jobs+=($!)
    compile driver-initcheck "$kernels" -DFAULT_INITCHECK & jobs+=($!)
    compile driver-racecheck "$out/racecheck" & jobs+=($!)
    compile driver-synccheck "$out/synccheck" & jobs+=($!)
    # The libraries of this checkout, as `make native` makes them, for this GPU alone.
    needs cmake
    local headers=$out/site/kernel_lens/include/tensorrt options=(-DAVSBG_FETCH_TENSORRT_HEADERS=OFF)
    [[ -d $headers ]] && options+=("-DAVSBG_TENSORRT_INCLUDE_DIR=$headers")
    command -v ninja >/dev/null && options+=(-G Ninja)
    options+=("-DAVSBG_CUDA_ARCHITECTURES=$arch" -DAVSBG_BUILD_TESTS=ON)
    { CUDACXX=$nvcc cmake -S . -B "$out/build" "${options[@]}" &&
      cmake --build "$out/build" --parallel "$(nproc)" && cmake --install "$out/build" --prefix .; } & jobs+=($!)
  fi
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  grep -h "registers" "$out/compile-driver.txt" | sort | uniq -c
  ((failed)) && tail -n 20 "$out"/compile-*.txt
  return $failed
}

stage_kernels() {
  local options=(-q -p no:cacheprovider -p no:xdist --confcutdir tests/gpu -m gpu)
  if ((here)); then
    AVSBG_KERNELS=$("$PYTHON" -c 'from fixtures.emulation import compile_library; print(compile_library())') || exit 1
    export AVSBG_KERNELS
    options=("${options[@]:0:${#options[@]}-2}")
  fi
  run_tests kernels "${options[@]}" tests/gpu/test_kernels.py
}

# Tests of which none ran have proven nothing.
run_tests() { # NAME OPTIONS AND FILES...
  local xml=$out/$1.xml && shift
  "$PYTHON" -m pytest "$@" --junitxml "$xml" || return 1
  "$PYTHON" - "$xml" <<'END'
import sys
import xml.etree.ElementTree as tree

suite = tree.parse(sys.argv[1]).getroot().find("testsuite")
if int(suite.get("tests")) == int(suite.get("skipped")):
    sys.exit("no test ran: each was skipped")
END
}

stage_plugin() {
  on_gpu
  local test=$out/build/tests/native/plugin/plugin_execution_test
  [[ -x $test ]] || skip "the plugin was not built: no TensorRT headers (kernel_lens in AVSBG_WHEELS has them)"
  "$test" "$out/build/runtime/native/tensorrt/libavsbg_tensorrt.so"
  local status=$?
  ((status != 77)) || { echo "the program finds no GPU" && return 1; } # one answered before any stage began
  return $status
}

stage_ptx() {
  on_gpu
  # Not CUDA_FORCE_PTX_JIT: that holds for PyTorch's kernels too, which come without PTX. This library has nothing else.
  CUDA_CACHE_DISABLE=1 AVSBG_CUDA_LIBRARY=$out/libavsbg_cuda_ptx.so run_tests ptx -q -p no:cacheprovider \
    -p no:xdist --confcutdir tests/gpu -m gpu -k "means and not 3136 or volume and not 32_bits" tests/gpu/test_kernels.py
}

# The backend torch on a bundle that it exports; the packages are those of an export.
stage_torch() {
  on_gpu
  needs_modules torch numpy pydantic onnx onnxscript onnxruntime safetensors timm tqdm
  run_tests torch -q -p no:cacheprovider -p no:xdist --confcutdir tests/gpu -m gpu tests/gpu/test_torch_backend.py
}

device() { ((here)) && echo --device cpu --quick || echo --device cuda; }

stage_operator() {
  if ((!here)); then "$out/rates" | tee "$out/rates.jsonl" || exit 1; fi
  # shellcheck disable=SC2046  # options are words
  "$PYTHON" scripts/gpu/operator_speed.py $(device) -o "$out/operator.jsonl"
}

stage_table7() {
  "$PYTHON" -c 'import timm' 2>/dev/null || skip "the encoders need timm: install it, or put its wheel in AVSBG_WHEELS"
  # shellcheck disable=SC2046
  "$PYTHON" scripts/gpu/table7.py $(device) -o "$out/table7.jsonl" --profile "$out/profile.txt"
}

# Small problems that reach every schedule: resident and streamed, both outputs, ragged, one multiprocessor and many; and
# a group of clips and of pairs, as engines launch it.
GROUP="group 2 3 1 4 140 140 56 2 2 40 40 64 2 1 33 150 64 0"
SANITIZED=(
  "mean 2 1 150 135 128 1 1" "mean 3 2 129 65 136 0 1" "mean 1 1 140 100 64 0 0" "mean 0 1 130 140 40 1 1"
  "volume 2 1 49 49 128 0 0" "volume 0 1 30 67 72 0 1" "$GROUP"
)

stage_sanitizers() {
  on_gpu && needs compute-sanitizer "it is part of the CUDA toolkit"
  local failed=0 said planted
  examine() { # TOOL DRIVER PROBLEM: prints what the tool found
    # shellcheck disable=SC2086  # a problem is several words
    timeout 40 compute-sanitizer --tool "$1" "$2" random $3 2>&1
  }
  for tool in memcheck racecheck synccheck initcheck; do
    for problem in "${SANITIZED[@]}"; do
      said=$(examine "$tool" "$out/driver" "$problem")
      if ! grep -q "SUMMARY:" <<<"$said"; then
        echo "$said" | tail -n 3
        skip "compute-sanitizer cannot look at this device"
      fi
      grep -q "SUMMARY: 0 " <<<"$said" || { failed=1 && echo "$tool, $problem:" && echo "$said"; }
    done
    planted=("${SANITIZED[0]}")
    [[ $tool == memcheck ]] && planted+=("$GROUP") # clips without their last frame
    for problem in "${planted[@]}"; do
      said=$(examine "$tool" "$out/driver-$tool" "$problem")
      if grep -q "SUMMARY: 0 " <<<"$said" || ! grep -q "SUMMARY:" <<<"$said"; then
        failed=1 && echo "$tool does not find the fault that was planted for it, $problem:" && echo "$said" | tail -n 5
      fi
    done
    echo "$tool: ${#SANITIZED[@]} problems; planted: $(grep "SUMMARY:" <<<"$said")"
  done
  return $failed
}

METRICS=gpu__time_duration.sum,sm__issue_active.avg.pct_of_peak_sustained_active,sm__inst_executed_pipe_tensor.sum
METRICS+=,sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active,launch__registers_per_thread
METRICS+=,sm__warps_active.avg.pct_of_peak_sustained_active,l1tex__data_pipe_lsu_wavefronts_mem_shared.sum
METRICS+=,l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum,lts__t_bytes.sum,dram__bytes.sum

stage_ncu() {
  on_gpu && needs ncu "it is part of the CUDA toolkit"
  local said failed=0
  : >"$out/ncu.csv"
  local stages="4 3136 3136 128 4 4 784 784 128 4 4 196 196 128 4 4 49 49 128 4" # of a clip of five frames
  for problem in "group 2 0 1 $stages" "mean 2 4 3136 3136 128 0 1" "mean 2 4 3136 3136 128 0 0" "mean 2 4 3136 3136 256 0 1" \
    "mean 0 4 3136 3136 128 0 1" "mean 1 4 3136 3136 64 0 1"; do
    # shellcheck disable=SC2086
    said=$(ncu --csv --metrics "$METRICS" "$out/driver" random $problem 2>&1)
    grep -q ERR_NVGPUCTRPERM <<<"$said" && skip "this user may not read the GPU's counters (ERR_NVGPUCTRPERM)"
    if ! grep -q '^"ID"' <<<"$said"; then failed=1 && echo "$problem:" && echo "$said" | tail -n 5; fi
    grep '^"' <<<"$said" | sed "s/^/\"$problem\",/" >>"$out/ncu.csv"
  done
  cat "$out/ncu.csv"
  return $failed
}

# On a Jetson: a bundle, engines with the plugin in fp16 and in int8 with a rest in fp16, their masks, their speed and the
# board's power, in each power mode that is asked for. The one that was set is set again.
stage_engines() {
  on_gpu
  "$PYTHON" -c 'import tensorrt' 2>/dev/null || skip "TensorRT's Python package cannot be imported"
  local bundle=$out/bundle meter="" mode before="" status=0 avsbg=("$PYTHON" -c 'from avsbg.cli import main; main()')
  local engines=(tensorrt:fp16 tensorrt:rest-fp16:int8)
  [[ -d $bundle ]] || "${avsbg[@]}" export avs-bg --seed 2 --audio embedding -o "$bundle" || exit 1
  "${avsbg[@]}" quantize "$bundle" --precision int8 --rest fp16 --calibrate vectors || exit 1
  "${avsbg[@]}" build "$bundle" --backend tensorrt --precision fp16 || exit 1
  "${avsbg[@]}" build "$bundle" --backend tensorrt --precision int8 --rest fp16 || exit 1
  "${avsbg[@]}" verify "$bundle" "${engines[@]/#/--backend=}" --json "$out/verify.json" || exit 1
  command -v tegrastats >/dev/null || echo "tegrastats was not found: no power is recorded"
  if [[ -n ${AVSBG_POWER_MODES:-} ]]; then
    needs nvpmodel "power modes are set with it"
    before=$(nvpmodel -q | tail -n 1)
    [[ $before =~ ^[0-9]+$ ]] || { echo "nvpmodel does not say the number of its mode: $before" && return 1; }
    # shellcheck disable=SC2064  # the mode of now
    trap "nvpmodel -m $before </dev/null" EXIT
    trap 'exit 143' TERM
  fi
  for mode in ${AVSBG_POWER_MODES:-set}; do
    if [[ $mode != set ]]; then
      # A mode that needs a restart asks for it, and is not measured.
      nvpmodel -m "$mode" </dev/null || { echo "the power mode $mode cannot be set" && status=1 && continue; }
      jetson_clocks || { echo "jetson_clocks failed in mode $mode" && status=1 && continue; }
    fi
    if command -v tegrastats >/dev/null; then
      tegrastats --interval 200 --logfile "$out/tegrastats-$mode.txt" & meter=$!
    fi
    "${avsbg[@]}" bench run "$bundle" "${engines[@]/#/--backend=}" --allow-unstable -o "$out/engines-$mode" --overwrite ||
      status=1
    [[ -n $meter ]] && kill "$meter"
  done
  return $status
}

# On a Jetson: the command that the bundle records for its engine with the plugin, as a user without avsbg gives it.
stage_trtexec() {
  on_gpu
  needs trtexec "it is part of TensorRT, in /usr/src/tensorrt/bin on a Jetson"
  local plugin=$out/build/runtime/native/tensorrt/libavsbg_tensorrt.so bundle=$out/bundle words
  [[ -r $plugin ]] || skip "the plugin was not built: no TensorRT headers"
  [[ -r $bundle/manifest.json ]] || skip "there is no bundle with engines: run the stage engines"
  words=$("$PYTHON" scripts/gpu/recorded_command.py "$bundle" --plugin "$plugin" --engine "$out/trtexec.engine") || exit 1
  mapfile -t words <<<"$words"
  echo "${words[*]}"
  (cd "$bundle" && "${words[@]}")
}

# On a Jetson: the tests of every backend on a GPU, but for those that other stages ran.
stage_backends() {
  on_gpu
  needs_modules torch numpy pydantic onnx onnxscript onnxruntime safetensors timm tqdm hypothesis
  run_tests backends -q -p no:cacheprovider -p no:xdist -m gpu tests/gpu --ignore tests/gpu/test_kernels.py \
    --ignore tests/gpu/test_torch_backend.py
}

if [[ -n ${stage:-} ]]; then
  "stage_$stage"
  exit $?
fi

if ((!here)) && ! architecture >/dev/null 2>&1; then
  echo "error: no NVIDIA GPU answers here. What needs none runs with: scripts/on-gpu.sh --here" >&2
  exit 1
fi
SECONDS=0
failed=()
for name in "${STAGES[@]}"; do
  if ((${#only[@]})) && [[ " ${only[*]} " != *" $name "* ]]; then continue; fi
  began=$SECONDS left=$((BUDGET - SECONDS)) started=$(date -u +%Y-%m-%dT%H:%M:%S+00:00)
  [[ -n ${NO_BUDGET:-} || $here == 1 ]] && left=${SECONDS_OF[$name]}
  limit=$((left < SECONDS_OF[$name] ? left : SECONDS_OF[$name]))
  status=124
  if ((limit > 0)); then
    here_option=() && ((here)) && here_option=(--here)
    timeout --kill-after=20 "$limit" "$0" "${here_option[@]}" --stage "$name" "$out" >"$out/$name.log" 2>&1
    status=$?
  else
    echo "no time was left of $BUDGET seconds" >"$out/$name.log"
  fi
  case $status in
    0) result=passed ;;
    77) result=skipped ;;
    124 | 137) result="out of time" && failed+=("$name") ;;
    *) result=failed && failed+=("$name") ;;
  esac
  reason=$(sed -n 's/^SKIPPED: //p' "$out/$name.log" | tail -n 1)
  printf '%-11s %-12s %3d s  %s\n' "$name" "$result" $((SECONDS - began)) "$reason"
  printf '{"stage": "%s", "result": "%s", "started": "%s", "seconds": %d, "reason": "%s"}\n' "$name" "$result" \
    "$started" $((SECONDS - began)) "${reason//\"/\'}" >"$out/$name.stage.json"
  [[ $result == passed || $result == skipped ]] || tail -n 15 "$out/$name.log" | sed 's/^/    /'
done
{ "$PYTHON" scripts/gpu/collect.py "$out" -o "$out/results.json" &&
  "$PYTHON" scripts/gpu/tables.py "$out/results.json"; } || failed+=(results)
echo "$out/results.json, as tables in results.md, and a log of each stage beside it; $SECONDS s"
((${#failed[@]} == 0)) || { echo "failed: ${failed[*]}" >&2 && exit 1; }
