"""Writes codec.ngc beside this file, to be done with a new format version only.

Run `python -m tests.golden.make_codec`.
"""

from tests.support.codec import GOLDEN, GOLDEN_TEXT, compress

if __name__ == "__main__":
    GOLDEN.write_bytes(compress(GOLDEN_TEXT).container.to_bytes())
