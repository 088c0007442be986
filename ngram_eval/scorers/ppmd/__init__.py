"""A language model mixed byte by byte with a byte-level PPM-D, as claimed in April 2026: a pseudo-probability."""
