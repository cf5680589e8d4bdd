#!/usr/bin/env bash
# Installs this package on the machine that it was made for: the Python packages or the C++ runtime, the native
# libraries, engines built for this machine's own GPU; verifies them, measures them, and writes one report.
#
# Usage: ./install.sh [OPTION]...
#   --prefix DIR       where everything goes, a folder that is new or empty (default: /opt/avsbg)
#   --backend NAME     tensorrt, or onnxruntime, which needs no GPU and builds no engine (default: tensorrt, but
#                      onnxruntime where the package has the C++ runtime alone)
#   --precision NAME   of the engine; one that the package was made for (default: the first of these)
#   --rest NAME        of an int8 or fp8 engine, the type of what is not quantized: fp16, the faster one on a Jetson Orin,
#                      or fp32 (default: what the package was made with)
#   --implementation NAME  of the correlation: plugin (our kernels, the default) or plain (standard operators)
#   --power-mode N     set this power mode of a Jetson first, as `nvpmodel -m N` does; 0 is MAXN on most modules
#   --fast-clocks      fix a Jetson's clocks at their highest for the benchmark, and restore them after it
#   --online           fetch Python packages that are not in the package; without it no network is used
#   --source ADDRESS   also start a service for this live source (rtsp://..., v4l2:/dev/video0, ...)
#   --video FILE       the video that the benchmark decodes (default: the package's own, if it has one)
#   --samples N        samples of the benchmark (default: 30); 0 skips it
#   --no-engine        stop before the engine: for the image of a container, which has no GPU while it is built
# Removing it: PREFIX/uninstall.sh. Exit status: 0, or 1 with the report of what was done until then.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() { sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; }
fail() {
  printf 'error: %s\n' "$1" >&2
  [[ -z ${2:-} ]] || printf '       %s\n' "$2" >&2
  exit 1
}

prefix=/opt/avsbg backend='' precision='' rest='' implementation=plugin samples=30
power_mode='' fast_clocks=false online=false source='' engine=true video=''
while (($#)); do
  case $1 in
    --prefix | --backend | --precision | --rest | --implementation | --power-mode | --source | --samples | --video)
      (($# > 1)) || fail "$1 needs a value." "./install.sh --help lists the options."
      name=${1#--} && printf -v "${name//-/_}" %s "$2" && shift 2 ;;
    --fast-clocks) fast_clocks=true && shift ;;
    --online) online=true && shift ;;
    --no-engine) engine=false && shift ;;
    -h | --help) usage && exit 0 ;;
    *) fail "there is no option $1." "./install.sh --help lists the options." ;;
  esac
done

# Nothing of the package is executed or copied before its hashes were checked.
(cd "$here" && sha256sum --check --quiet SHA256SUMS) || fail "a file of the package is damaged." "Unpack or copy it again."
# shellcheck source=/dev/null
. "$here/settings.env"
for name in TARGET ARCHITECTURE PYTHON_VERSION RUNTIME PRECISIONS PRECISION REST SCOPE; do
  [[ -n ${!name:-} ]] || fail "settings.env does not say $name."
done
# shellcheck disable=SC2153  # of settings.env
[[ -n $precision ]] || precision=$PRECISION
[[ -n $backend ]] || backend=$([[ $RUNTIME == native ]] && echo onnxruntime || echo tensorrt)

[[ $backend == tensorrt || $backend == onnxruntime ]] || fail "there is no backend $backend." "tensorrt or onnxruntime."
[[ $implementation == plugin || $implementation == plain ]] ||
  fail "there is no implementation $implementation." "plugin or plain."
[[ $source != *[\"\\[:space:]]* ]] || fail "--source cannot hold spaces, quotes or backslashes: $source"
[[ -z $video || -f $video ]] || fail "$video is not a file."
[[ $samples =~ ^[0-9]+$ ]] || fail "--samples is a number, not $samples."
[[ -z $power_mode || $power_mode =~ ^[0-9]+$ ]] || fail "--power-mode is a number, not $power_mode." "nvpmodel -p lists them."
[[ " $PRECISIONS " == *" $precision "* ]] ||
  fail "this package was not made for $precision, but for $PRECISIONS." "Make one: avsbg package ... --precision $precision"
if [[ " $QUANTIZED " == *" $precision "* ]]; then
  rest=${rest:-$REST}
  [[ $rest == fp16 || $rest == fp32 ]] || fail "--rest $rest cannot be built." "fp16 or fp32."
else
  [[ -z $rest ]] || fail "--rest $rest cannot be combined with --precision $precision, which quantizes nothing." \
    "Leave it out, or take one that does: ${QUANTIZED:-avsbg package ... --precision int8}"
fi
[[ $RUNTIME != native || $backend != tensorrt ]] ||
  fail "the package has the C++ runtime alone, which builds no TensorRT engines." \
    "Take --backend onnxruntime, or a package made with --runtime both."

# The prefix is pasted into a unit and a script, and uninstall.sh removes all of it.
[[ $prefix == /* ]] || prefix=$PWD/$prefix
while [[ $prefix == ?*/ ]]; do prefix=${prefix%/}; done
is_plain() {
  local LC_ALL=C
  [[ $1 =~ ^[A-Za-z0-9._/+-]+$ && $1/ != */../* && $1/ != */./* ]]
}
is_plain "$prefix" || fail "--prefix may hold letters, digits and . _ / + - only, and no part that is . or ..: $prefix"
[[ ! -e $prefix/installed.txt ]] || fail "$prefix holds an installation." "Remove it first: $prefix/uninstall.sh"
if [[ -L $prefix || (-e $prefix && ! -d $prefix) || (-d $prefix && -n $(ls -A "$prefix")) ]]; then
  fail "$prefix exists and is not an empty folder; uninstall.sh would remove what is in it." "Take another --prefix."
fi
if [[ -n $source && $prefix =~ ^/(home|root|run/user|tmp|var/tmp)(/|$) ]]; then
  fail "the service sees neither home folders nor the machine's temporary ones, as $prefix is." "Take another --prefix."
fi

# The machine: another processor or JetPack would fail later, and with a worse message.
machine=$(uname -m)
[[ $machine == "$ARCHITECTURE" ]] || fail "this package is for $TARGET ($ARCHITECTURE); this machine is $machine."
if [[ -n $JETSON_LINUX ]]; then
  release=$(head -n 1 /etc/nv_tegra_release 2>/dev/null || true)
  [[ $release == "# $JETSON_LINUX "* ]] || fail \
    "this package is for $TARGET, whose Jetson Linux is $JETSON_LINUX; this machine has ${release:-no /etc/nv_tegra_release}." \
    "Make a package for this machine's JetPack: avsbg package BUNDLE --target ..."
fi
if [[ $RUNTIME != native ]]; then
  python=$(command -v "python$PYTHON_VERSION" || command -v python3) || fail "python3 is not installed." \
    "apt install python3 python3-venv"
  found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [[ $found == "$PYTHON_VERSION" ]] || fail "the packages are for Python $PYTHON_VERSION; this machine has $found." \
    "apt install python$PYTHON_VERSION python$PYTHON_VERSION-venv"
fi
mkdir -p "$prefix" || fail "$prefix cannot be made." "Run this as root, or take --prefix DIR."
prefix=$(cd "$prefix" && pwd)
report=$prefix/report.txt
export XDG_STATE_HOME=$prefix/state # the list of engines that were built here, which alone are loaded
: >"$report"
printf '%s\n' "$prefix" >"$prefix/installed.txt"
cp "$here/uninstall.sh" "$here/PACKAGE.json" "$here/settings.env" "$prefix/"

step() { printf '\n== %s\n' "$1" | tee -a "$report"; }
run() { # a command, with its output in the report
  printf '$ %s\n' "$*" | tee -a "$report"
  "$@" 2>&1 | tee -a "$report"
}
restore_clocks() { :; }
trap 'status=$?; restore_clocks; ((status == 0)) || printf "\nfailed; the report so far: %s\n" "$report" >&2' EXIT

step "Machine"
run uname -srm
if [[ -n $JETSON_LINUX ]]; then
  run head -n 1 /etc/nv_tegra_release
  if [[ -n $power_mode ]]; then
    # nvpmodel may ask to restart the machine for a mode; a script answers no, and the mode is read back.
    run nvpmodel -m "$power_mode" </dev/null
    nvpmodel -q | grep -qx "$power_mode" ||
      fail "the power mode $power_mode was not set." "Some modes need a restart: sudo nvpmodel -m $power_mode, then again."
  fi
  run nvpmodel -q
elif [[ -n $power_mode ]] || $fast_clocks; then
  fail "--power-mode and --fast-clocks are for a Jetson; this package is for $TARGET."
fi

step "Bundle"
cp -r "$here/bundle" "$prefix/bundle"
printf '%s\n' "$prefix/bundle" | tee -a "$report"

if [[ $RUNTIME != native ]]; then
  step "Python packages"
  "$python" -m venv --system-site-packages "$prefix/venv"
  offline=(--no-index)
  $online && offline=()
  # pycuda is built here, and only where engines run.
  grep -v "$([[ $backend == tensorrt ]] && echo '^$' || echo '^\(pycuda\|cuda-bindings\)==')" \
    "$here/python/requirements.txt" >"$prefix/requirements.txt"
  PATH=$PATH:/usr/local/cuda/bin run "$prefix/venv/bin/python" -m pip install --disable-pip-version-check --quiet \
    "${offline[@]}" --find-links "$here/python/wheels" -r "$prefix/requirements.txt" || fail \
    "the Python packages could not be installed." "Packages that this package lacks are fetched with --online."
  run "$prefix/venv/bin/python" -m pip install --disable-pip-version-check --quiet --no-index --no-deps --force-reinstall \
    "$here"/python/wheels/avsbg-*.whl
fi
if [[ $RUNTIME != python ]]; then
  step "C++ runtime"
  cp -r "$here/native" "$prefix/native"
  mkdir -p "$prefix/bin"
  cat >"$prefix/bin/avsbg-run" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$prefix/native/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export XDG_STATE_HOME=$XDG_STATE_HOME
exec $prefix/native/bin/avsbg-run "\$@"
END
  chmod 755 "$prefix/bin/avsbg-run"
  run "$prefix/bin/avsbg-run" --version
fi

libraries=$here/libraries
[[ $RUNTIME == native ]] || step "Native libraries"
if [[ -d $here/source ]]; then
  if [[ $backend == tensorrt && $implementation == plugin ]]; then
    cp -r "$here/source" "$prefix/source"
    run "$prefix/source/scripts/build-on-device.sh" "$prefix/built"
    libraries=$prefix/built/runtime/lib
  else
    echo "not built: only --backend tensorrt with --implementation plugin needs them" | tee -a "$report"
    libraries=''
  fi
fi
if [[ -n $libraries && $RUNTIME != native ]]; then
  package=$("$prefix/venv/bin/python" -c 'from avsbg import __path__ as folders; print(folders[0])')
  mkdir -p "$package/runtime/lib"
  cp "$libraries"/* "$package/runtime/lib/"
  printf '%s\n' "$package"/runtime/lib/* | tee -a "$report"
  # Engines hold the hash of the plugin that they are built with, so both runtimes need the same one.
  [[ $RUNTIME == python ]] || cp "$libraries/libavsbg_tensorrt.so" "$prefix/native/lib/"
fi

if ! $engine; then
  printf '\ninstalled in %s without an engine; report: %s\n' "$prefix" "$report"
  exit 0
fi
if [[ $RUNTIME == native ]]; then
  step "Verification"
  run "$prefix/bin/avsbg-run" verify "$prefix/bundle" --backend onnxruntime
else
  avsbg=$prefix/venv/bin/avsbg
  step "Doctor"
  run "$avsbg" doctor
  spec=onnxruntime
  if [[ $backend == tensorrt ]]; then
    step "Engine"
    run "$avsbg" build "$prefix/bundle" --backend tensorrt --precision "$precision" ${rest:+--rest "$rest"} \
      --implementation "$implementation"
    spec=tensorrt:$implementation:${rest:+rest-$rest:}$precision
  fi
  step "Verification"
  run "$avsbg" verify "$prefix/bundle" --backend "$spec"
  [[ $RUNTIME == python ]] || run "$prefix/bin/avsbg-run" verify "$prefix/bundle" --backend "$spec"
  step "Benchmark"
  shopt -s nullglob
  packed=("$here"/benchmark.*)
  video=${video:-${packed[0]:-}}
  scope=(--scope "$SCOPE")
  [[ $SCOPE == model ]] || scope+=(--video "$video")
  if ((samples == 0)); then
    echo "not run: --samples 0" | tee -a "$report"
  elif [[ $SCOPE != model && -z $video ]]; then
    echo "not run: this bundle is measured on a video, and none was given: --video FILE" | tee -a "$report"
  else
    if $fast_clocks; then
      run jetson_clocks --store "$prefix/clocks.conf"
      restore_clocks() { jetson_clocks --restore "$prefix/clocks.conf"; }
      run jetson_clocks
    fi
    [[ -z $JETSON_LINUX ]] || run jetson_clocks --show
    run "$avsbg" bench run "$prefix/bundle" --backend "$spec" "${scope[@]}" --samples "$samples" \
      --allow-unstable -o "$prefix/bench" --overwrite
    restore_clocks
    restore_clocks() { :; }
  fi
fi

if [[ -n $source ]]; then
  step "Service"
  mkdir -p "$prefix/out" "$prefix/state" # all that the service may write to
  unit=${AVSBG_UNIT_FOLDER:-/etc/systemd/system}/avsbg-live.service
  escaped=${source//%/%%} escaped=${escaped//\$/\$\$} # systemd takes % for a specifier and $ for a variable
  content=$(<"$here/avsbg-live.service")
  # Quoted, since a bare & in a replacement stands for what is replaced.
  command="$prefix/venv/bin/avsbg run"
  [[ $RUNTIME != native ]] || command=$prefix/bin/avsbg-run
  content=${content//@COMMAND@/"$command"} content=${content//@PREFIX@/"$prefix"}
  content=${content//@BACKEND@/"${spec:-onnxruntime}"} content=${content//@SOURCE@/"$escaped"}
  printf '%s\n' "$content" >"$unit"
  printf '%s\n' "$unit" >>"$prefix/installed.txt"
  run systemctl daemon-reload
  run systemctl enable --now avsbg-live.service
fi
printf '\ninstalled in %s; report: %s\n' "$prefix" "$report"
