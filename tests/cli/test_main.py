"""The `ngram-eval` command, and what all commands have in common."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ngram_eval.cli import main as cli
from ngram_eval.cli.main import COMMANDS
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.text.shards import write_shard
from tests.support import flags
from tests.support.processes import heeding_ctrl_c
from tests.support.streams import Stream

NESTED = {"codec": ["compress"], "memory": ["build"]}
"""Commands whose flags are those of a command of theirs."""


def shown(capsys: Any, *arguments: str) -> str:
    """Standard output of a command that exits with 0."""
    capsys.readouterr()
    with suppress(SystemExit):
        cli.main(arguments)
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_screen_and_names_flags_that_exist(name: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = shown(capsys, name, "--help")
    lines = text.splitlines()
    assert text.startswith(f"usage: ngram-eval {name}")
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100, max(lines, key=len)
    assert re.search(rf"^examples?$\n^  ngram-eval {name} ", text, re.MULTILINE), "an example"
    everything = shown(capsys, name, *NESTED.get(name, []), "--help-all")
    known = set(re.findall(r"--[a-z0-9-]+", everything)) | {"--help-all", "--nproc"}
    for nested in flags.NESTED.get(name, ()):
        known |= set(re.findall(r"--[a-z0-9-]+", shown(capsys, name, nested, "--help-all")))
    assert set(re.findall(r"--[a-z][a-z0-9-]+", text)) <= known
    assert len(everything.splitlines()) > 5


def test_the_command_itself(capsys: Any) -> None:
    text = shown(capsys, "--help")
    assert shown(capsys) == text
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 100
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", text, re.MULTILINE)
    assert shown(capsys, "--version") == f"ngram_eval {version('ngram_eval')}\n"
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["runn"])
    assert exit_info.value.code == 2
    assert "'runn' is not a command: choose from run, prepare" in capsys.readouterr().err


def test_it_is_installed_and_runs_a_subcommand(stream: Stream, tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "ngram-eval"
    flags = ["--data", str(stream.shard), "--scores", str(stream.scores), "--seq-len", "256", "--preset", "exact"]
    for command in ([str(script)], [sys.executable, "-m", "ngram_eval"]):
        out = tmp_path / "out.json"
        done = subprocess.run([*command, "run", *flags, "--json", str(out)], capture_output=True, text=True, check=True)
        assert "nats per token" in done.stdout
        assert "\x1b[" not in done.stdout + done.stderr, "no colours in a pipe"
        assert json.loads(out.read_text())["runs"][0]["preset"] == "exact"


def test_the_modules_that_torchrun_and_habit_start_still_have_a_command_line() -> None:
    for name in ("run", "train", "audit", "codec"):
        line = [sys.executable, "-m", f"ngram_eval.{name}", "--help"]
        done = subprocess.run(line, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"usage: python -m ngram_eval.{name} ")
    for one in COMMANDS.values():
        assert hasattr(import_module(one.module), one.options)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_completion_in_bash(capsys: Any, tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(shown(capsys, "completion", "bash"))
    assert "#compdef" in shown(capsys, "completion", "zsh")
    assert "complete --no-files --command 'ngram-eval'" in shown(capsys, "completion", "fish")

    def complete(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        body = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; COMP_LINE=x; "
        body += '$(complete -p ngram-eval | sed "s/.*-F \\([^ ]*\\).*/\\1/"); echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", body], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert set(complete("ngram-eval", "")) >= set(COMMANDS)
    assert complete("ngram-eval", "comp") == ["compare"]
    assert complete("ngram-eval", "run", "--from-r") == ["--from-result"]
    assert complete("ngram-eval", "run", "--ngram", "p") == ["pipelined"]
    assert complete("ngram-eval", "budget", "--round") == ["--rounds"]
    assert complete("ngram-eval", "codec", "dec") == ["decompress"]
    assert complete("ngram-eval", "run", "--preset", "mixer") == ["mixer", "mixer-fast", "mixer-max"]
    assert complete("ngram-eval", "codec", "compress", "--preset", "h") == []
    assert complete("ngram-eval", "train", "--preset", "") == ["embedded", "small", "pr890"]
    assert all(one.startswith("--") for one in complete("ngram-eval", "run", "--")), "flags, no words of their help"
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["completion", "tcsh"])
    assert exit_info.value.code == 2


def test_without_the_extension_the_first_word_is_about_it(stream: Stream, tmp_path: Path) -> None:
    """For every command that computes; those that do not, work."""
    blocked = (
        "import sys; sys.modules['ngram_eval._core'] = None; sys.argv[0] = 'x'; from ngram_eval.cli.main import main; "
    )
    (tmp_path / "text").write_text("some text")
    data = ["--data", str(stream.shard), "--uniform", "--vocab-size", "50"]
    for arguments in (
        ["run", *data],
        ["run", *data, "--preset", "exact"],
        ["audit", *data],
        ["explain", *data, "--position", "5"],
        ["budget", *data],
        ["codec", "compress", "--uniform", str(tmp_path / "text"), str(tmp_path / "out")],
    ):
        command = [sys.executable, "-c", f"{blocked}main({arguments!r})"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, (arguments, done.stderr)
        assert done.stderr.startswith("error: the C++ extension ngram_eval._core is not built for this Python"), (
            done.stderr
        )
        assert "pip install -e ." in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    subprocess.run([sys.executable, "-c", f"{blocked}main(['compare', '--help'])"], check=True, capture_output=True)
    reference = [*data, "--backend", "reference", "--max-tokens", "300", "--seq-len", "32", "--preset", "hashed"]
    subprocess.run([sys.executable, "-c", f"{blocked}main({['run', *reference]!r})"], check=True, capture_output=True)


def test_quiet_and_json_for_scripts(stream: Stream, tmp_path: Path) -> None:
    flags = ["--data", str(stream.shard), "--scores", str(stream.scores), "--seq-len", "256", "--preset", "exact"]
    base = [sys.executable, "-m", "ngram_eval.run", *flags]
    done = subprocess.run([*base, "--quiet"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    done = subprocess.run([*base, "--json", "-"], capture_output=True, text=True, check=True)
    (run,) = json.loads(done.stdout)["runs"]
    assert run["complete"] is True
    assert "nats per token" in done.stderr
    done = subprocess.run([*base, "--json", "-", "--quiet"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["runs"][0]["nats"] == run["nats"]
    assert done.stderr == ""


def slow(tmp_path: Path) -> list[str]:
    """An evaluation of half a minute, in many batches."""
    write_shard(tmp_path / "data.bin", (np.random.default_rng(0).zipf(1.3, 200_000) % 50).astype(np.uint16))
    script = "import time\nfrom ngram_eval.cli import run\nfrom ngram_eval.evaluation import engine\n"
    script += "from ngram_eval.models import source\n"
    script += "source.UniformSource.batch_windows = 16\n"
    script += "old = engine.Engine.score\n"
    script += "def score(self, reading):\n    time.sleep(0.01)\n    old(self, reading)\n"
    script += "engine.Engine.score = score\nrun.main()\n"
    (tmp_path / "slow.py").write_text(script)
    data = [
        "--data",
        str(tmp_path / "data.bin"),
        "--uniform",
        "--vocab-size",
        "50",
        "--seq-len",
        "64",
        "--stride",
        "16",
    ]
    return [sys.executable, str(tmp_path / "slow.py"), *data, "--buckets", "1024", "--json", str(tmp_path / "out.json")]


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_leaves_what_was_scored(tmp_path: Path) -> None:
    """Flagged as partial; and it equals the same windows of a whole run."""
    command = [*slow(tmp_path), "--preset", "hashed", "--preset", "exact"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeding_ctrl_c)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 10
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "interrupted" in err
    assert "hashed: PARTIAL. Interrupted after" in out
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert run["preset"] == "hashed"
    assert run["complete"] is False
    assert run["subset"] is True
    assert 0 < run["positions"] < 199_936
    scored = run["positions"] + 1
    whole = ["--max-tokens", str(scored), "--quiet"]
    assert (run["positions"] - 64) % 16 == 0
    fast = [sys.executable, "-m", "ngram_eval.run", *command[2:], *whole]
    subprocess.run(fast, check=True)
    first = json.loads((tmp_path / "out.json").read_text())["runs"][0]
    if first["positions"] == run["positions"]:  # the cut to whole sequences may have left some out
        assert first["nats"] == run["nats"]


def test_ctrl_c_is_noted_once_and_ends_at_the_second() -> None:
    with Interrupt() as interrupt:
        assert list(interrupt.until(iter([1, 2]))) == [1, 2]
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert interrupt.asked
        assert list(interrupt.until(iter([1, 2]))) == []
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Interrupt() as interrupt:

        def items() -> Any:
            yield 1
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            yield 2

        started = time.monotonic()
        assert list(interrupt.until(items())) == [1], "what is being made is broken off"
        assert time.monotonic() - started < 2


def test_colours_and_bars_on_a_terminal_only(stream: Stream, tmp_path: Path) -> None:
    """A terminal of our own gets a bar with the time left."""
    command = [*slow(tmp_path), "--preset", "hashed", "--max-tokens", "60000"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 1 << 16)
            except OSError:
                break
    os.close(ours)
    process.wait()
    text = seen.decode(errors="replace")
    assert "\x1b[" in text
    bars = re.findall(r"hashed.*?(\d+)%.*?(\d:\d\d:\d\d).*?(\d:\d\d:\d\d)", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    assert any(0 < int(share) < 100 for share, _, _ in bars), text[-2000:]
