"""Text in a column of Parquet files (the extra `parquet`), streamed."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ngram_eval.errors import InputError, refusing
from ngram_eval.files import open_input

_ROWS_AT_ONCE = 256
_BUFFER_BYTES = 1 << 20


def read_parquet(path: Path, field: str, advance: Callable[[int], None]) -> Iterator[str]:
    """The texts of a column, row by row. `advance` is called with the number of the file's bytes that rows stand for.

    Raises `InputError` for a file that is not Parquet or has no such column of strings, and for a row without text.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path} needs pyarrow, which can't be imported ({error}): pip install ngram_eval[parquet]"
        ) from error
    with open_input(path, "check the path") as file, refusing(path, "is not Parquet, or damaged", "fetch it again"):
        size = path.stat().st_size
        opened = parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        rows, schema = opened.metadata.num_rows, opened.schema_arrow
        if field not in schema.names:
            raise InputError(f"{path} has no column {field!r}: name the one that holds the text with --text-field")
        kind = schema.field(field).type
        if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            raise InputError(f"{path} has {kind}, not text, in its column {field!r}: name another with --text-field")
        done = 0
        for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=[field]):
            for number, text in enumerate(batch.column(0).to_pylist(), done + 1):
                if text is None:
                    raise InputError(f"{path} has no text in row {number}: leave that row out")
                yield text
            before, done = done, done + batch.num_rows
            advance(size * done // max(rows, 1) - size * before // max(rows, 1))
