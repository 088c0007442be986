"""The C++ extension, `ngram_eval._core`: there, or a clear word about why not."""

import sys

from ngram_eval.errors import InputError


def require_extension() -> None:
    """Raise `InputError` unless the extension can be imported, before any work is done."""
    try:
        import ngram_eval._core  # noqa: F401
    except ImportError as error:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InputError(
            f"the C++ extension ngram_eval._core is not built for this Python {python} ({error}): run "
            "`pip install -e .` in the checkout (it takes a C++20 compiler), or give --backend reference, which is slow"
        ) from error
