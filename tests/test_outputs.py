"""What is written, whatever it is, replaces files in one step, follows links, and is written into what is no file."""

import ast
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ngram_eval
from ngram_eval.assets import asset
from ngram_eval.cli import main as cli
from ngram_eval.errors import InputError, exit_code
from ngram_eval.files import replacing, require_folder, require_writable, write_text
from ngram_eval.models import artifact
from tests.support.streams import Stream

ROOT = Path(ngram_eval.__file__).parents[1]

RUN = "--uniform --vocab-size 50 --preset hashed --seq-len 64 --stride 64 --buckets 256 --max-tokens 600 --quiet --data"
TRAIN = (
    "--steps 2 --batch 2 --micro-batch 0 --seq-len 32 --layers 2 --width 32 --heads 2 --kv-heads 1 --mlp-hidden 40 "
    "--bigram-slots 16 --bigram-width 4 --rope-dims 4 --xsa-layers 1 --value-layers 1 --value-width 4 --vocab-size 50 "
    "--warmup-steps 0 --log-every 1 --device cpu --quiet --data"
)
OUTPUTS: dict[str, tuple[str, list[str]]] = {
    "run": (f"{RUN} DATA --json OUT0 --report OUT1 --save-scores OUT2", ["{", "<!doctype html>", "PK"]),
    "run to safetensors": (f"{RUN} DATA --save-scores OUT0.safetensors", ["h"]),
    "explain": (f"{RUN} DATA --position 300 --json OUT0", ["{"]),
    "compare": ("RESULT --quiet --json OUT0", ["{"]),
    "codec compress": ("--uniform --tokenizer bytes --quiet TEXT OUT0 --json OUT1", ["NGRMCODE", "{"]),
    "codec decompress": ("PACKED OUT0 --quiet", ["to be"]),
    "memory build": ("--text TEXT --quiet --out OUT0 --json OUT1", ["NGRMKEPT", "{"]),
    "convert": ("PUBLISHED --out OUT0 --rope-dims 4", ["NGRMEVAL"]),
    "train": (f"{TRAIN} DATA --folder FOLDER --out OUT0", ["NGRMEVAL"]),
}
"""Command -> (its flags, how what it writes begins)."""


@pytest.fixture
def command(
    stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, list[Path]], Callable[[], int]]:
    """A command with its outputs' paths, to be called for its exit code."""
    monkeypatch.setattr(artifact, "code_bytes", lambda: 1)  # takes seconds
    (tmp_path / "text").write_text("to be or not to be")

    def call(*arguments: str) -> int:
        try:
            cli.main(arguments)
        except SystemExit as error:
            return exit_code(error)
        return 0

    def made(name: str, outputs: list[Path]) -> Callable[[], int]:
        flags = OUTPUTS[name][0]
        inputs = {"DATA": stream.shard, "TEXT": tmp_path / "text", "FOLDER": tmp_path / "folder"}
        inputs |= {"RESULT": tmp_path / "r.json", "PACKED": tmp_path / "packed", "PUBLISHED": tmp_path / "model.pt"}
        if "RESULT" in flags:
            assert call("run", *RUN.split(), str(stream.shard), "--json", str(inputs["RESULT"])) == 0
        if "PACKED" in flags:
            assert (
                call(
                    "codec",
                    *f"compress --uniform --tokenizer bytes --quiet {tmp_path}/text".split(),
                    f"{tmp_path}/packed",
                )
                == 0
            )
        if "PUBLISHED" in flags:
            torch.save(published(), inputs["PUBLISHED"])
        for index, path in enumerate(outputs):
            flags = flags.replace(f"OUT{index}.safetensors", str(path)).replace(f"OUT{index}", str(path))
        given = [str(inputs.get(word, word)) for word in flags.split()]
        return lambda: call(*name.split(" to ")[0].split(), *given)

    return made


def published() -> dict[str, torch.Tensor]:
    """A model of one block in the layout of PR #890."""
    shapes = {"attn.c_q.weight": (16, 16), "attn.c_k.weight": (16, 16), "attn.c_v.weight": (16, 16)}
    shapes |= {"attn.proj.weight": (16, 16), "mlp.fc.weight": (24, 16), "mlp.proj.weight": (16, 24)}
    block = {name: torch.rand(shape) for name, shape in shapes.items()}
    block |= {"attn.q_gain": torch.ones(2), "attn_scale": torch.ones(16), "mlp_scale": torch.ones(16)}
    block |= {"resid_mix": torch.ones(2, 16)}
    return {"tok_emb.weight": torch.rand(50, 16), **{f"blocks.0.{name}": tensor for name, tensor in block.items()}}


def names(name: str, folder: Path) -> list[Path]:
    ending = ".safetensors" if "safetensors" in name else ""
    return [folder / f"out{index}{ending}" for index in range(len(OUTPUTS[name][1]))]


def right(name: str, contents: list[bytes]) -> bool:
    return len(contents) == len(OUTPUTS[name][1]) and all(
        content and (begin == "h" or begin.encode("latin-1") in content[:20])
        for content, begin in zip(contents, OUTPUTS[name][1], strict=True)
    )


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("dangling", [False, True])
def test_links_are_followed(name: str, dangling: bool, command: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    links = names(name, tmp_path)
    for link in links:
        link.symlink_to(Path("elsewhere") / link.name)
        if not dangling:
            (tmp_path / "elsewhere" / link.name).write_text("the one before")
    assert command(name, links)() == 0
    assert all(link.is_symlink() for link in links)
    assert right(name, [(tmp_path / "elsewhere" / link.name).read_bytes() for link in links])
    assert sorted(path.name for path in (tmp_path / "elsewhere").iterdir()) == [link.name for link in links]


@pytest.mark.parametrize("name", OUTPUTS)
def test_fifos_are_written_to(name: str, command: Any, tmp_path: Path) -> None:
    fifos, read = names(name, tmp_path), {}
    for fifo in fifos:
        os.mkfifo(fifo)
    call = command(name, fifos)
    readers = [
        threading.Thread(target=lambda fifo=fifo: read.update({fifo: fifo.read_bytes()}), daemon=True) for fifo in fifos
    ]
    for reader in readers:
        reader.start()
    assert call() == 0
    for reader in readers:
        reader.join(10)
    assert all(stat.S_ISFIFO(fifo.lstat().st_mode) for fifo in fifos)
    assert right(name, [read[fifo] for fifo in fifos])


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A device like /dev/null to be lost; who may not make one gets a link to be lost."""
    path = tmp_path / "device"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        path.write_bytes(b"")
    except OSError:
        path.unlink(missing_ok=True)
        path.symlink_to("/dev/null")
    before = path.lstat()
    yield path
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert stat.S_ISCHR(path.stat().st_mode)


@pytest.mark.parametrize("name", OUTPUTS)
def test_devices_are_written_to(name: str, command: Any, device: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{path.name}.safetensors" if path.suffix else device for path in names(name, tmp_path)]
    if name == "run to safetensors":
        paths[0].symlink_to(device)
    assert command(name, paths)() == 0


def test_every_file_is_written_by_the_one_rule() -> None:
    """Whatever writes a file is inside `with replacing(...)`, or listed here with the reason why not."""
    apart = {
        ("ngram_eval/files.py", "path.open"),  # the rule itself
        ("ngram_eval/files.py", "os.fdopen"),
        ("ngram_eval/files.py", "os.replace"),
        ("ngram_eval/files.py", "sys.stdout.write"),
        ("ngram_eval/text/prepare.py", "path.open"),  # stdin, kept in prepare's own folder
        ("ngram_eval/text/prepare.py", "os.replace"),  # out of it
        ("ngram_eval/assets/build.py", "(work / 'train.txt').write_text"),  # temporary
        ("ngram_eval/assets/build.py", "(work / 'sample.txt').write_text"),
        ("ngram_eval/evaluation/budget/exchange.py", "out.write_text"),  # between processes of its own
        ("ngram_eval/logs.py", "self._path.open"),  # grows
        ("train/journal.py", "self._path.open"),  # likewise
        ("ngram_eval/audit/evaluator/process.py", "(self._folder / 'errors').open"),  # temporary
        ("ngram_eval/audit/evaluator/worker.py", "Path('/proc/self', name).write_text"),  # the kernel's
    }
    found = {}
    for path in [*(ROOT / "ngram_eval").rglob("*.py"), *(ROOT / "train").glob("*.py")]:
        tree = ast.parse(path.read_text())
        covered = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and any("replacing(" in ast.unparse(item) for item in node.items)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and id(node) not in covered and _writes(node):
                found[path.relative_to(ROOT).as_posix(), ast.unparse(node.func)] = node.lineno
    assert set(found) - apart == set(), found
    assert len(found) >= 8, "the search finds what it should"


def _writes(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    last = name.rpartition(".")[2]
    if last in ("open", "fdopen"):
        return any(isinstance(one, ast.Constant) and str(one.value)[:1] in "wax" for one in call.args if _text(one))
    if name == "write_text":
        return False  # files.write_text
    return last in ("write_text", "write_bytes", "savez", "save_file", "savefig", "tofile") or name == "os.replace"


def _text(one: ast.expr) -> bool:
    return isinstance(one, ast.Constant) and isinstance(one.value, str) and 0 < len(one.value) <= 3


# Refused before the work, and by name


@pytest.mark.parametrize("kind", ["folder", "no folder", "socket", "circle", "dangling into nowhere"])
def test_what_could_not_be_written_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    if kind == "folder":
        path.mkdir()
    elif kind == "no folder":
        path = tmp_path / "none" / "out"
    elif kind == "socket":
        os.mknod(path, 0o666 | stat.S_IFSOCK)
    else:
        path.symlink_to("out" if kind == "circle" else "none/out")
    with pytest.raises(InputError, match=f"json is .*{path.name}"):
        require_writable("--json", path)


def test_what_can_be_written_is_not_refused(tmp_path: Path, device: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("new")
    os.mkfifo(tmp_path / "fifo")
    for name in ("file", "link", "fifo", "other", device.name):
        require_writable("--json", tmp_path / name)


def test_folders_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("none")
    for name in ("file", "file/below", "dangling"):
        with pytest.raises(InputError, match=f"plot is .*{name}"):
            require_folder("--plot", tmp_path / name)
    for name in (".", "new", "new/below"):
        require_folder("--plot", tmp_path / name)


def test_plots_into_a_file_are_refused_before_the_work(stream: Stream, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", *RUN.split(), str(stream.shard), "--plot", str(tmp_path / "file")])
    assert stopped.value.code == 2
    assert "--plot is" in capsys.readouterr().err


def no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk_names_the_file(
    name: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = names(name, tmp_path)
    call = command(name, outputs)
    capsys.readouterr()
    monkeypatch.setattr("os.fsync", no_space)
    assert call() == 2
    error = capsys.readouterr().err
    named = [*map(str, outputs), str(tmp_path / "folder/log.jsonl")]
    assert error.count("\n") == 1
    assert "No space left on device" in error
    assert any(f"'{path}'" in error for path in named), error


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (f"{RUN} DATA --checkpoint FOLDER", "folder/hashed/start-0000.ckpt"),
        ("prepare TEXT.txt --tokenizer MODEL --out FOLDER", "tokens_000000.bin"),
        ("prepare TEXT.txt --train-tokenizer 275 --out FOLDER", "tokenizer.model"),
    ],
)
def test_a_full_disk_names_what_was_to_be_written_into_a_folder(
    flags: str, named: str, stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "text.txt").write_text("to be or not to be " * 100)
    words = {"DATA": stream.shard, "TEXT.txt": tmp_path / "text.txt", "FOLDER": tmp_path / "folder"}
    words["MODEL"] = asset("tokenizer.model")
    monkeypatch.setattr("os.fsync", no_space)
    command = [] if flags.startswith("prepare") else ["run"]
    with pytest.raises(SystemExit, match="2"):
        cli.main([*command, *(str(words.get(word, word)) for word in flags.split())])
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: [Errno 28] No space left on device: ")
    assert error.endswith(f"{named}'")


def test_a_real_full_disk_and_a_reader_that_leaves(tmp_path: Path) -> None:
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
            write_text(Path("/dev/full"), "x")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: os.close(os.open(fifo, os.O_RDONLY)))
    reader.start()
    with pytest.raises(BrokenPipeError, match="fifo") as stopped:
        write_text(fifo, "x" * (1 << 20))
    reader.join()
    assert exit_code(stopped.value) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
@pytest.mark.parametrize("flags", ["--json -", ""])
def test_a_full_standard_output_is_named(command: Any, tmp_path: Path, flags: str) -> None:
    assert command("run", [tmp_path / "r.json", tmp_path / "r.html", tmp_path / "s.npz"])() == 0
    argv = [sys.executable, "-m", "ngram_eval", "compare", str(tmp_path / "r.json"), *flags.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "error: [Errno 28] No space left on device: 'standard output'\n")


@pytest.mark.parametrize("length", [250, 255])
def test_long_names(tmp_path: Path, length: int) -> None:
    write_text(tmp_path / ("x" * length), "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x" * length]


def test_standard_output_by_its_other_names(tmp_path: Path) -> None:
    """Where it is a file, it goes on behind what is there, and is not replaced."""
    script = "from pathlib import Path; from ngram_eval.files import write_text; print(1); "
    script += "write_text(Path('/dev/stdout'), '2\\n'); print(3)"
    for mode in ("wb", "ab"):
        with (tmp_path / "out").open(mode) as file:
            subprocess.run([sys.executable, "-c", script], stdout=file, check=True)
    assert (tmp_path / "out").read_text().split() == ["1", "2", "3"] * 2


# What killed processes leave

KILLED = """
import os, signal, sys
from pathlib import Path
from ngram_eval.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("written", flush=True)
    sys.stdin.read()
"""


def test_the_next_one_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    (tmp_path / ".out.json.mine").write_text("not ours")
    living, killed = (
        subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    )
    for process in (living, killed):
        assert process.stdout is not None
        process.stdout.readline()
    killed.kill()
    killed.communicate()
    assert len(list(tmp_path.glob(".out.json.*.part"))) == 2
    write_text(path, "new")
    assert len(list(tmp_path.glob(".out.json.*.part"))) == 1, "that of the living one"
    living.communicate(b"")
    assert path.read_text() == "half"
    assert sorted(one.name for one in tmp_path.iterdir()) == [".out.json.mine", "out.json"]


def test_the_block_may_seek_and_fail(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    def fail() -> None:
        with replacing(tmp_path / "fifo") as file:
            np.savez(file, x=np.arange(3))
            file.seek(0)
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):  # nothing was written, so nobody was waited for
        fail()
