"""Builds the C++ extension. Everything else about the package is in pyproject.toml."""

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

setup(
    ext_modules=[
        Pybind11Extension(
            "ngram_eval._core",
            [
                "csrc/bind.cc",
                "csrc/bind_mixer.cc",
                "csrc/exact_counts.cc",
                "csrc/exact_model.cc",
                "csrc/hashed_counts.cc",
                "csrc/increment_limit.cc",
                "csrc/mixer.cc",
                "csrc/mixer_contexts.cc",
            ],
            depends=[
                "csrc/bind_mixer.h",
                "csrc/bit_history.h",
                "csrc/estimate.h",
                "csrc/exact_counts.h",
                "csrc/exact_model.h",
                "csrc/hash.h",
                "csrc/hashed_counts.h",
                "csrc/increment_limit.h",
                "csrc/mixer.h",
                "csrc/mixer_contexts.h",
                "csrc/portable_math.h",
                "csrc/prefetch.h",
                "csrc/zero_pages.h",
            ],
            cxx_std=20,
            extra_compile_args=["-O3", "-Wall", "-Wextra", "-ffp-contract=off"],
        )
    ]
)
