#!/usr/bin/env bash
# Tests the kernels on this machine's GPU, times them, and writes one report:
#
#     benchmarks/gpu_suite.sh [--dry-run] [REPORT.md]          (default: build/gpu_suite.md)
#
# Takes python3 (or $PYTHON) with torch, triton and numpy, no network, and less than 8 minutes. Installs nothing: the
# package is laid out in build/gpu_suite as it would be installed. With a C++ compiler the C++ backend is built and timed
# too; with pytest, and for the conformance suite hypothesis, the tests run. What had to be skipped is in the report, and
# so is what failed; then the exit status is 1.
#
# --dry-run needs no GPU: Triton's interpreter at toy sizes shows that this script works. Its numbers mean nothing.
set -uo pipefail
export OMP_NUM_THREADS=1

usage() { echo "usage: benchmarks/gpu_suite.sh [--dry-run] [REPORT.md]" >&2; exit 2; }

command_line="benchmarks/gpu_suite.sh $*"
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1; shift; fi
case "${1:-}" in -*) usage ;; esac
[ $# -le 1 ] || usage
python=$(command -v "${PYTHON:-python3}") || { echo "no ${PYTHON:-python3}: set PYTHON" >&2; exit 2; }
case "$python" in /*) ;; *) python=$PWD/$python ;; esac
report=${1:-}
case "$report" in "" | /*) ;; *) report=$PWD/$report ;; esac

cd "$(dirname "$0")/.." || exit
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
rm -rf "$work" && mkdir -p "$work" && cp -R ngram_eval tests benchmarks docs pyproject.toml "$work" || exit
rm -f "$work"/ngram_eval/_core*.so
cp -R kernels train "$work/ngram_eval" && cd "$work" || exit
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
mkdir "ngram_eval-$version.dist-info"
printf 'Metadata-Version: 2.1\nName: ngram_eval\nVersion: %s\n' "$version" > "ngram_eval-$version.dist-info/METADATA"

status=0
say() { printf '%s\n' "$@" >> report.md; }
has() { "$python" -c "import $1" 2> /dev/null; }

# part LIMIT TITLE COMMAND...: the command's output becomes a section; if it fails, its last lines are kept.
part() {
    local limit=$1 title=$2 rc=0
    shift 2
    echo "$title ..." >&2
    say "" "## $title" ""
    timeout --kill-after=10 "$limit" "$@" >> report.md 2> errors.txt || rc=$?
    if [ $rc -ne 0 ]; then
        status=1
        say "" "**FAILED** with exit status $rc (124 is a time-out, after $limit s)." "" "$(tail -n 60 errors.txt | sed 's/^/    /')"
    fi
}

# Warnings of other versions than the pinned ones are no failures here. Indented, so that Markdown leaves it alone.
tests() {
    has xdist && set -- -n 8 "$@"
    "$python" -m pytest -q -rfEs --tb=short -p no:cacheprovider -W default --disable-warnings -m "not slow" \
        -k "test_kernels or test_device or triton" "$@" | sed 's/^/    /'
}

say "# $title" "" "Command: \`$command_line\`, $(date -u +%F), commit $(git -C "$root" describe --always --dirty 2> /dev/null || echo unknown)" ""
say "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || echo 'nvidia-smi says nothing'); $("$python" -V); $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2-)" ""

# pybind11's headers come with torch.
echo "building ..." >&2
includes=$("$python" -c "import sysconfig, pathlib, torch
print('-isystem', sysconfig.get_path('include'), '-isystem', pathlib.Path(torch.__file__).parent / 'include')")
suffix=$("$python" -c "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))")
# shellcheck disable=SC2086 # the words of $includes
if ${CXX:-c++} -std=c++20 -O3 -fvisibility=hidden -shared -fPIC $includes "$root"/csrc/*.cc \
    -o "ngram_eval/_core$suffix" 2> errors.txt; then
    say "The C++ backend was built by $(${CXX:-c++} --version | head -n 1)."
else
    say "The C++ backend was skipped, as it could not be built:" "" "$(tail -n 5 errors.txt | sed 's/^/    /')"
fi

files=(tests/test_kernels.py tests/test_device.py)
if has hypothesis; then
    files+=(tests/test_conformance.py)
else
    say "" "tests/test_conformance.py was skipped: hypothesis is not installed."
fi
if has pytest; then
    export -f tests has
    export python
    part 240 Tests bash -o pipefail -c 'tests "$@"' tests "${files[@]}"
else
    say "" "All tests were skipped: pytest is not installed. What is timed below is checked against PyTorch first."
fi
part 200 Times "$python" -m benchmarks.gpu_bench
if has tyro && has zstandard && has safetensors && has rich; then
    part 260 "Whole evaluations" "$python" -m benchmarks.gpu_evaluation ${dry_run:+--dry-run}
else
    say "" "Whole evaluations and training were skipped: tyro, zstandard, safetensors or rich is not installed."
fi

mkdir -p "$(dirname "$report")" && cp report.md "$report" && echo "$report" >&2
exit $status
