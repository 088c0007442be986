"""Ranks that can't meet say why in one line, soon."""

import os
import socket
import subprocess
import sys
import time

import pytest

from ngram_eval.distributed.ranks import joined_ranks
from ngram_eval.errors import InputError

MEET = """
from ngram_eval.distributed.ranks import joined_ranks
from ngram_eval.errors import exit_on_input_error
with exit_on_input_error(), joined_ranks(1):
    pass
"""


@pytest.fixture
def port() -> int:
    """One that is free."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def place(**changed: str | None) -> dict[str, str]:
    """The environment of a rank, without those that are None."""
    whole = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"} | changed
    return {name: value for name, value in whole.items() if value is not None}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not: start it with torchrun, or unset RANK"),
        ({"MASTER_PORT": None}, "MASTER_PORT is '' in the environment, and not 1 to 65535"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT is '65536'"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' in the environment, and not 1 to"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'"),
        ({"WORLD_SIZE": "9" * 5000}, "WORLD_SIZE is '999"),
        ({"RANK": "2"}, "RANK is '2' in the environment, and not 0 to 1"),
        ({"RANK": "-1"}, "RANK is '-1'"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
    ],
)
def test_a_wrong_variable_is_named(
    changed: dict[str, str | None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in place(**changed).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), joined_ranks(1):
        pass


def test_a_port_in_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        for name, value in place(MASTER_PORT=str(port)).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=f"MASTER_PORT={port} can't be listened on .*in use"), joined_ranks(1):
            pass


def test_a_rank_waits_for_rank_0_as_long_as_it_is_told(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place(RANK="1", MASTER_PORT=str(port)).items():
        monkeypatch.setenv(name, value)
    since = time.monotonic()
    with pytest.raises(InputError, match=r"rank 1: .* has no answer within 0\.5 seconds"), joined_ranks(0.5):
        pass
    assert 0.5 <= time.monotonic() - since < 10


def test_rank_0_names_the_rank_that_does_not_come(port: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEET],
        env={**os.environ, **place(MASTER_PORT=str(port))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: rank 0: rank 1 has not come within 1 seconds: see why it did not start")
    assert done.stderr.count("\n") == 1
