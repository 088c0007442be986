"""Two runs in one folder: the second is refused, whichever command it is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ngram_eval.cli import main as cli
from tests.support.streams import Stream
from tests.test_outputs import RUN, TRAIN

AT_WORK = """
import sys
from pathlib import Path
from ngram_eval.files import working_in
with working_in("--folder", Path(sys.argv[1])):
    print("at work", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> "Iterator[subprocess.Popen[bytes]]":
    """A process that is at work in `tmp_path`/hashed."""
    command = [sys.executable, "-c", AT_WORK, str(tmp_path / "hashed")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"at work\n"
        yield process
        process.communicate()


@pytest.mark.parametrize("command", ["run", "train"])
def test_a_second_run_in_a_folder_is_refused_until_the_first_ends(
    command: str,
    elsewhere: "subprocess.Popen[bytes]",
    stream: Stream,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flag, given, flags = "--checkpoint", tmp_path, RUN
    if command == "train":
        flag, given, flags = "--folder", tmp_path / "hashed", f"--out {tmp_path}/m.ngev --stop-after 1 {TRAIN}"
    arguments = [command, *flags.split(), str(stream.shard), flag, str(given)]
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert capsys.readouterr().err == (
        f"error: {flag} is {tmp_path}/hashed, where another run is at work: wait for its end, or give another folder\n"
    )
    assert list((tmp_path / "hashed").iterdir()) == []
    elsewhere.kill()  # the system gives its lock back
    elsewhere.wait()
    cli.main(arguments)
    assert list((tmp_path / "hashed").iterdir())
