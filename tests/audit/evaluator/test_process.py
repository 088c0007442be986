"""An evaluator's process is its own, and is held to limits; what it answers is read strictly."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
import pytest

from ngram_eval.audit.evaluator.ask import Evaluator, read, rounding
from ngram_eval.audit.evaluator.process import Limits, Place, Process, Refused, Reply
from ngram_eval.errors import InputError
from tests.support import evaluators

TOKENS = np.arange(8)
LIMITS = Limits(processes=1, timeout=60)
HERE = """
import contextlib, os, socket, struct, sys

def alone(tokens):
    found = [one for one in os.listdir("/proc") if one.isdigit()]
    return {"nats": len(found), "bytes": len(socket.if_nameindex())}

def folders(tokens):
    names = [os.environ["HOME"], os.environ["TMPDIR"], os.getcwd()]
    assert len({os.path.realpath(one) for one in names}) == 3
    assert all(os.listdir(one) == [] for one in names)
    print("this is no answer")
    return float(sum(one.startswith("ngram_eval.audit") for one in sys.modules) + len(sys.argv) - 1)

def reads(tokens):
    return float(len(open(WHERE, "rb").read()))

class Scorer:
    @classmethod
    def score(cls, tokens):
        return [1.0] * (len(tokens) - 1)

def strange(tokens):
    return {"nats": [1.0], "perplexity": 3.0}

def wide(tokens):
    return [[1.0, 2.0]]

def into_the_pipe(text):
    for pipe in range(3, 16):
        with contextlib.suppress(OSError):
            os.write(pipe, struct.pack("<q", len(text)) + text)
    return 1.0

def no_json(tokens):
    return into_the_pipe(b"{")

def a_list(tokens):
    return into_the_pipe(b"[1]")

def missing(tokens):
    return into_the_pipe(b'{"arrays": [["nats", 9]], "scalars": {}, "precision": "float64"}')

def endless_head(tokens):
    return into_the_pipe(b" " * (1 << 17))

def endless_body(tokens):
    return into_the_pipe(b'{"size": 1000000000}')
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process")
    shutil.copy(evaluators.__file__, folder / "eval.py")
    (folder / "data.bin").write_bytes(b"secret")
    (folder / "here.py").write_text(HERE + f"\nWHERE = {str(folder / 'data.bin')!r}\n")
    return folder


@pytest.fixture
def start(folder: Path) -> Iterator[Any]:
    """Starts processes that end with the test."""
    started: list[Process] = []

    def start(name: str, limits: Limits = LIMITS, hidden: tuple[Path, ...] = ()) -> Process:
        started.append(Process(replace(Place.of(f"{folder}/{name}"), hidden=hidden), limits))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_it_has_folders_of_its_own_and_nothing_of_the_auditor_in_sight(start: Any) -> None:
    assert start("here.py:folders").ask(TOKENS).scalars == {"nats": 0.0}


def test_it_is_alone_and_without_network_where_the_system_allows_that(start: Any) -> None:
    process = start("here.py:alone")
    found = process.ask(TOKENS).scalars
    assert process.lacking or (found["nats"] <= 2 and found["bytes"] == 1), found


def test_all_of_the_isolation_is_possible_where_user_namespaces_are(start: Any, folder: Path) -> None:
    if (
        which("unshare") is None
        or subprocess.run(["unshare", "-Urmnpf", "--mount-proc", "true"], check=False).returncode
    ):
        pytest.skip("this system allows no user namespaces")
    assert start("here.py:alone", hidden=(folder / "data.bin",)).lacking == ()


def test_a_hidden_file_is_empty_for_it_and_another_is_not(start: Any, folder: Path) -> None:
    process = start("here.py:reads", hidden=(folder / "data.bin",))
    assert process.lacking or process.ask(TOKENS).scalars == {"nats": 0.0}
    assert start("here.py:reads").ask(TOKENS).scalars == {"nats": 6.0}
    assert (folder / "data.bin").read_bytes() == b"secret"


def test_a_method_is_a_function(start: Any) -> None:
    np.testing.assert_array_equal(start("here.py:Scorer.score").ask(TOKENS).arrays["nats"], np.ones(7))


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("eval.py:endless", {"timeout": 1.0}, "took more than 1 seconds on a stream of 8 tokens.*a longer timeout"),
        ("eval.py:ending", {}, "ended with exit code 7 on a stream of 8 tokens"),
        ("eval.py:greedy", {"gigabytes": 2.0}, "raised .*MemoryError"),
        ("eval.py:failing", {}, "raised RuntimeError: no such weights on a stream of 8 tokens"),
        ("here.py:strange", {}, "raised TypeError: it gave .*perplexity.*give nats, p or loss"),
        ("here.py:no_json", {}, "wrote into its answer on a stream of 8 tokens"),
        ("here.py:a_list", {}, "wrote into its answer on a stream of 8 tokens"),
        ("here.py:missing", {}, "wrote into its answer on a stream of 8 tokens"),
        ("here.py:endless_head", {}, "sent a head of 131,072 bytes"),
        ("here.py:endless_body", {}, "charged 125,000,000 positions"),
        ("here.py:wide", {}, "nats has shape .1, 2.: give one number for each position"),
    ],
)
def test_what_goes_wrong_is_said_with_the_evaluators_name(
    start: Any, name: str, limits: dict[str, Any], message: str
) -> None:
    process = start(name, replace(LIMITS, **limits))
    with pytest.raises(InputError, match=message) as info:
        process.ask(TOKENS)
    assert name.partition(":")[2] in str(info.value)


def test_processor_time_is_limited(start: Any) -> None:
    with pytest.raises(InputError, match=r"ended with exit code .* cpu"):
        start("eval.py:endless", replace(LIMITS, cpu=1)).ask(TOKENS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eval.py", "give module:function or path/eval.py:function"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("no_such_module:f", "can't be loaded .ModuleNotFoundError.*PYTHONPATH"),
        ("json:none", "can't be loaded .AttributeError"),
        ("json:__doc__", "can't be loaded .TypeError: __doc__ is no function, but a str"),
    ],
)
def test_a_name_without_a_function_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Process(Place.of(name), LIMITS).close()


def test_an_evaluator_of_the_current_folder_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with Evaluator(Place.of("here:Scorer.score"), LIMITS) as evaluator:
        assert evaluator.ask([TOKENS])[0].total == 7.0


def test_questions_are_answered_once_and_refusals_are_remembered(folder: Path) -> None:
    with Evaluator(Place.of(f"{folder}/eval.py:as_array"), replace(LIMITS, processes=2)) as evaluator:
        streams = [TOKENS[:length] for length in (8, 7, 8, 6)]
        first = evaluator.ask(streams)
        assert evaluator.runs == 3
        again = evaluator.ask(streams)
        assert evaluator.runs == 3
    for one, other, stream in zip(first, again, streams, strict=True):
        assert one is other
        assert one.nats is not None
        np.testing.assert_allclose(one.nats[1:], evaluators.nats(stream))
    with Evaluator(Place.of(f"{folder}/eval.py:failing"), LIMITS) as evaluator:
        (refused,) = evaluator.try_to([TOKENS])
        assert "no such weights" in str(refused)
        with pytest.raises(Refused):
            evaluator.ask([TOKENS[:5]])


# What is answered


def reply(precision: str = "float64", scalars: dict[str, float] | None = None, **arrays: Any) -> Reply:
    kinds = {name: np.float64 if name in ("nats", "p") else np.int64 for name in arrays}
    return Reply(scalars or {}, {name: np.array(one, kinds[name]) for name, one in arrays.items()}, precision)


@pytest.mark.parametrize(
    ("given", "odd"),
    [
        (reply(nats=[1, 2, 3]), ""),
        (reply(nats=[0, 1, 2, 3]), ""),
        (reply(nats=[1, 2]), "1 of 3 positions are not charged, the last ones"),
        (reply(nats=[1, 3], positions=[0, 2]), "1 of 3 positions are not charged, 1 the first"),
        (reply(nats=[1, 2, 3, 3], positions=[0, 1, 2, 2]), "1 are charged up to 2 times, 2 the first"),
        (reply(nats=[2, 1, 3], positions=[1, 0, 2]), "they are not in order"),
        (reply(nats=[1, 2, 3, 4], positions=[0, 1, 2, 3]), "1 outside the stream are charged"),
        (reply(nats=[1, np.nan, 3]), "1 charges are no numbers"),
        (reply(scalars={"loss": 2.0, "count": 2}), "2 positions are counted, of 3"),
    ],
)
def test_what_is_wrong_with_positions_is_told(given: Reply, odd: str) -> None:
    assert read(given, 4).odd == odd


def test_answers_are_read_in_every_form() -> None:
    answer = read(reply(p=[0.5, 0.25, 2.0], positions=[0, 1, 2], bytes=[1, 2, 3]), 4)
    assert answer.nats is not None
    np.testing.assert_allclose(answer.nats, [np.nan, np.log(2), np.log(4), -np.log(2)])
    assert answer.bytes == 6
    assert read(reply(scalars={"nats": 5.5}), 4).total == 5.5
    assert read(reply(scalars={"loss": 2.0}), 4).total == 6.0
    assert read(reply(scalars={"loss": np.log(2), "bpb": 0.5}), 4).bytes == pytest.approx(6)
    assert read(reply(nats=[0.5, 0.1]), 3).precision == "float64"
    assert read(reply(nats=np.array([0.5, 0.1], np.float32)), 3).precision == "float32"
    with pytest.raises(InputError, match="give one for each"):
        read(reply(nats=[1.0], positions=[1, 2]), 4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.2345, 2.5], 0.5e-4),
        ([1.0, 2.0], 0.5),
        ([1 / 3, 0.1], 4 * np.spacing(1 / 3)),
        ([float(np.float32(1 / 3))], 4 * float(np.spacing(np.float32(1 / 3)))),
    ],
)
def test_the_rounding_of_totals_is_seen(values: list[float], expected: float) -> None:
    assert rounding(np.array(values)) == pytest.approx(expected, rel=1e-6)
