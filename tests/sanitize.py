"""Tests of the C++ extension under gcc's sanitizers: `python -m tests.sanitize [address] [thread]`, in pytest a plugin.

Python itself is not instrumented: the sanitizer's library is loaded before it, and the plugin has `ngram_eval._core` be
the instrumented build. Nothing is suppressed of what the extension does:

- Leaks are not looked for: Python frees much of its own at no time.
- `PYTHONMALLOC=malloc` puts every object of Python between AddressSanitizer's fences.
- ThreadSanitizer sees only half of what libraries do that it did not compile, such as how OpenMP's threads of torch
  wait for each other, or a lock that was taken inlined: reports from within those libraries are left out.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support.host_cuda import compiler, extension, loaded
from tests.support.places import ROOT

BUILT = ROOT / "build" / "sanitize"
_CORE = "NGRAM_EVAL_SANITIZED_CORE"
"""Environment: where the instrumented extension is."""
SUPPRESSED = "called_from_lib:libgomp\ncalled_from_lib:libtorch_cpu\nmutex:libtorch\n"
COMPILED = "not triton and not cuda"
"""Tests of other backends run none of the extension."""
SHARED = "tests/csrc/test_threads.py"


class Sanitizer(NamedTuple):
    """How gcc builds for a sanitizer, and what runs under it."""

    flags: tuple[str, ...]
    library: str
    environment: dict[str, str]
    tests: tuple[str, ...]


SANITIZERS = {
    "address": Sanitizer(
        ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"),
        "libasan.so",
        {"ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"},
        (
            *("tests/scorers/test_conformance.py", "tests/scorers/test_exact.py", "tests/scorers/test_mixer.py"),
            "tests/scorers/ppmd/test_model.py",
            *("tests/codec/test_coder.py", "tests/test_decoding.py", "tests/csrc/test_arrays.py", SHARED),
        ),
    ),
    "thread": Sanitizer(
        ("-fsanitize=thread",),
        "libtsan.so",
        {"TSAN_OPTIONS": f"suppressions={BUILT}/suppressed:exitcode=66"},
        (SHARED, "tests/scorers/test_conformance.py"),
    ),
}

if _CORE in os.environ:
    loaded("_core", Path(os.environ[_CORE]))


def run(name: str) -> int:
    """Build for a sanitizer, run its tests, and return pytest's exit code."""
    sanitizer, gcc = SANITIZERS[name], compiler()
    assert gcc is not None
    sources = sorted(str(path) for path in (ROOT / "csrc").rglob("*.cc") if path.name != "cuda.cc")
    built = extension(BUILT / name, "_core", "-g1", "-fno-omit-frame-pointer", *sanitizer.flags, *sources)
    (BUILT / "suppressed").write_text(SUPPRESSED)
    libraries = [  # libstdc++ too, or the sanitizer finds no C++ exceptions to watch
        subprocess.run([gcc, f"-print-file-name={library}"], capture_output=True, text=True, check=True).stdout.strip()
        for library in (sanitizer.library, "libstdc++.so")
    ]
    environment = {**os.environ, **sanitizer.environment, _CORE: str(built), "LD_PRELOAD": " ".join(libraries)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.sanitize", "-m", "not slow", "-k", COMPILED]
    command.append("--capture=sys")  # a report goes to the descriptor, and the process may end after it
    return subprocess.run([*command, *sanitizer.tests], env=environment, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(any([run(name) != 0 for name in sys.argv[1:] or SANITIZERS]))
