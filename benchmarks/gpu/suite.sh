#!/usr/bin/env bash
# Tests the kernels on this machine's GPU, times them, and writes one report:
#
#     benchmarks/gpu/suite.sh [--dry-run] [--only triton|cuda] [REPORT.md]          (default: build/gpu_suite.md)
#
# Takes python3 (or $PYTHON) with torch, triton and numpy, no network, and about 8 minutes. Installs nothing: the
# package is laid out in build/gpu_suite as it would be installed. With a C++ compiler the C++ backend is built and timed
# too; with nvcc the CUDA extension, for this GPU alone unless NGRAM_EVAL_CUDA_ARCHS says otherwise ("80;90"); with
# pytest, and for the conformance suite hypothesis, the tests run; with compute-sanitizer it watches the CUDA kernels.
# What had to be skipped is in the report, and so is what failed; then the exit status is 1.
#
# --dry-run needs no GPU: Triton's interpreter and threads of the host, at toy sizes, show that this script works. Its
# numbers mean nothing. --only leaves out what belongs to the other backend.
set -uo pipefail
export OMP_NUM_THREADS=1

usage() { echo "usage: benchmarks/gpu/suite.sh [--dry-run] [--only triton|cuda] [REPORT.md]" >&2; exit 2; }

command_line="benchmarks/gpu/suite.sh $*"
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
only=
if [ "${1:-}" = --only ]; then
    case "${2:-}" in triton | cuda) only=$2; shift 2 ;; *) usage ;; esac
fi
case "${1:-}" in -*) usage ;; esac
[ $# -le 1 ] || usage
python=$(command -v "${PYTHON:-python3}") || { echo "no ${PYTHON:-python3}: set PYTHON" >&2; exit 2; }
case "$python" in /*) ;; *) python=$PWD/$python ;; esac
report=${1:-}
case "$report" in "" | /*) ;; *) report=$PWD/$report ;; esac

cd "$(dirname "$0")/../.." || exit
root=$PWD
work=$root/build/gpu_suite
report=${report:-$root/build/gpu_suite.md}
unset TRITON_INTERPRET
title="The kernels on a GPU"
if [ -n "$dry_run" ]; then
    export TRITON_INTERPRET=1
    title="DRY RUN without a GPU: the numbers mean nothing"
elif ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "torch finds no GPU (or there is no torch): --dry-run runs the script without one" >&2
    exit 2
fi

# The package in its installed shape, and what runs it.
rm -rf "$work" && mkdir -p "$work" && cp -R ngram_eval tests benchmarks docs csrc pyproject.toml "$work" || exit
rm -f "$work"/ngram_eval/_*.so
cp -R kernels train "$work/ngram_eval" && cd "$work" || exit
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
mkdir "ngram_eval-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: ngram_eval\nVersion: %s\n' "$version" > "ngram_eval-$version.dist-info/METADATA"

status=0
say() { printf '%s\n' "$@" >> report.md; }
has() { "$python" -c "import $1" 2> /dev/null; }

# part LIMIT TITLE COMMAND...: the command's output becomes a section; if it fails, its last lines are kept. LIMIT is
# seconds on a GPU; a dry run, on cores that may be busy, has four times as many.
part() {
    local limit=$1 title=$2 rc=0
    shift 2
    [ -z "$dry_run" ] || limit=$((4 * limit))
    echo "$title ..." >&2
    say "" "## $title" ""
    timeout --kill-after=10 "$limit" "$@" >> report.md 2> errors.txt || rc=$?
    if [ $rc -ne 0 ]; then
        status=1
        say "" "**FAILED** with exit status $rc (124 is a time-out, after $limit s)." "" "$(tail -n 60 errors.txt | sed 's/^/    /')"
    fi
}

# Warnings of other versions than the pinned ones are not failures here. Indented, so that Markdown leaves it alone.
tests() {
    local chosen=$1 jobs
    shift
    jobs=$(nproc)
    has xdist && set -- -n $((jobs < 8 ? jobs : 8)) "$@"
    "$python" -m pytest -q -rfEs --tb=short -p no:cacheprovider -W default --disable-warnings -m "not slow" \
        -k "$chosen" "$@" | sed 's/^/    /'
}

say "# $title" "" "Command: \`$command_line\`, $(date -u +%F), commit $(git -C "$root" describe --always --dirty 2> /dev/null || echo unknown)" ""
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo 'nvidia-smi says nothing'); $("$python" -V); $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)" ""

# pybind11's headers come with torch. What takes long is compiled at the same time.
echo "building ..." >&2
includes=$("$python" -c "import sysconfig, pathlib, torch
print('-isystem', sysconfig.get_path('include'), '-isystem', pathlib.Path(torch.__file__).parent / 'include')")
suffix=$("$python" -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
cxx=${CXX:-c++}
flags="-std=c++20 -O3 -ffp-contract=off -fvisibility=hidden -fPIC -Icsrc"
nvcc=${CUDA_HOME:+$CUDA_HOME/bin/}nvcc
command -v "$nvcc" > /dev/null || nvcc=
# As in setup.py.
nvcc_flags="-std=c++20 -O3 --fmad=false --expt-relaxed-constexpr -Xcompiler=-fPIC,-fvisibility=hidden -Icsrc -lineinfo"
kernels="csrc/cuda/device.cu csrc/cuda/exact.cu csrc/cuda/hashed.cu"
objects="device.o exact.o hashed.o"

# shellcheck disable=SC2086 # the words of $flags and $includes
build_core() { "$cxx" $flags -shared $includes csrc/{exact,hashed,mixer}/*.cc csrc/python/{module,exact,hashed,mixer}.cc \
    -o "ngram_eval/_core$suffix"; }

# shellcheck disable=SC2046,SC2086
build_cuda() {
    local rc=0 bind gpu checked="csrc/hashed/counts.cc csrc/exact/counts.cc tests/csrc/device_check.cu"
    if [ -n "$dry_run" ]; then
        "$cxx" $flags -O1 -pthread -c -x c++ $kernels &&
            "$cxx" $flags -O1 -shared -pthread $includes csrc/python/cuda.cc $objects -o "ngram_eval/_cuda$suffix" &&
            "$cxx" $flags -O1 -pthread $objects -x c++ $checked -o device_check &&
            mkdir -p build/host_cuda && cp "ngram_eval/_cuda$suffix" build/host_cuda
        return
    fi
    gpu=$(printf -- '-gencode arch=compute_%s,code=sm_%s ' $(for arch in ${archs//;/ }; do echo "$arch" "$arch"; done))
    "$cxx" $flags $includes -c csrc/python/cuda.cc -o bind.o & bind=$!
    "$nvcc" $nvcc_flags $gpu --threads=0 -c $kernels || rc=$?
    wait "$bind" || rc=$?
    [ "$rc" = 0 ] && "$nvcc" -shared -cudart static bind.o $objects -o "ngram_eval/_cuda$suffix" &&
        "$nvcc" $nvcc_flags $gpu $checked $objects -o device_check
}

build_core 2> core_errors.txt & core=$!
cuda_built=
if [ "$only" = triton ]; then
    :
elif [ -n "$dry_run" ] || [ -n "$nvcc" ]; then
    archs=${NGRAM_EVAL_CUDA_ARCHS:-$([ -n "$dry_run" ] || "$python" -c "import torch; print('%d%d' % torch.cuda.get_device_capability())")}
    started=$SECONDS
    if build_cuda 2> errors.txt; then
        cuda_built=1
        say "The CUDA extension was built ${dry_run:+for the host }in $((SECONDS - started)) s${archs:+ for sm_$archs by $("$nvcc" --version | grep -o 'release [^,]*')}." ""
    else
        status=1
        say "**The CUDA extension could not be built:**" "" "$(tail -n 20 errors.txt | sed 's/^/    /')" ""
    fi
else
    say "The CUDA extension was skipped: there is no nvcc." ""
fi
if wait "$core"; then
    say "The C++ backend was built by $("$cxx" --version | head -n 1)."
else
    say "The C++ backend was skipped, as it could not be built:" "" "$(tail -n 5 core_errors.txt | sed 's/^/    /')"
fi

files=(tests/kernels/test_kernels.py tests/scorers/test_device.py)
if has hypothesis; then
    files+=(tests/scorers/test_conformance.py tests/scorers/test_exact.py)
else
    say "" "tests/scorers/test_conformance.py and test_exact.py were skipped: hypothesis is not installed."
fi
case $only in
    cuda) chosen=cuda ;;
    triton) chosen="(test_kernels or test_device or triton) and not cuda" ;;
    *) chosen="test_kernels or test_device or triton or cuda" ;;
esac
[ -n "$cuda_built" ] || chosen="($chosen) and not cuda"
if has pytest; then
    export -f tests has
    export python
    part 240 Tests bash -o pipefail -c 'tests "$@"' tests "$chosen" "${files[@]}"
else
    say "" "All tests were skipped: pytest is not installed. What is timed below is checked against PyTorch first."
fi
if [ -n "$cuda_built" ]; then
    part 60 "The device's algorithm against the host's" ./device_check 20
    for tool in memcheck racecheck; do
        if [ -n "$dry_run" ]; then
            :
        elif ! command -v compute-sanitizer > /dev/null; then
            say "" "compute-sanitizer --tool $tool was skipped: it is not installed."
        else
            part 90 "compute-sanitizer --tool $tool" compute-sanitizer --tool "$tool" --error-exitcode 1 ./device_check 1
        fi
    done
    part 150 "Times of CUDA" "$python" -m benchmarks.gpu.cuda
fi
if [ "$only" != cuda ]; then
    part 200 Times "$python" -m benchmarks.gpu.bench
    if has tyro && has zstandard && has safetensors && has rich; then
        part 260 "Whole evaluations" "$python" -m benchmarks.gpu.evaluation ${dry_run:+--dry-run}
    else
        say "" "Whole evaluations and training were skipped: tyro, zstandard, safetensors or rich is not installed."
    fi
fi

mkdir -p "$(dirname "$report")" && cp report.md "$report" && echo "$report" >&2
exit $status
