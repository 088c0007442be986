"""The fuzzer knows every reader of files, and a short run of it finds nothing."""

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

import ngram_eval
from tests.fuzz.failed import FAILED
from tests.fuzz.fuzz import read
from tests.fuzz.readers import READERS

ROOT = Path(ngram_eval.__file__).parents[1]
OPENING = {
    *("open", "open_input", "read_input", "require_input", "file_sha256", "read_bytes", "read_text", "memmap"),
    *("fromfile", "safe_open", "from_pretrained", "cached_file", "GGUFReader", "from_file", "np.load", "torch.load"),
}
"""Names of what opens a file to read it."""
ANY_BYTES = {
    **dict.fromkeys(
        (
            *("codec.packing:_load_neural", "codec.packing:_matching_neural"),
            *(
                "api:evaluate",
                "evaluation.job:model_identity",
                "evaluation.job:read_inputs",
                "models.hf.loading:digest",
                "audit.probes.account:data_is_canonical",
            ),
        ),
        "its digest is taken",
    ),
    **dict.fromkeys(
        ("text.prepare:_prepare", "text.prepare:_spool", "train.journal:__init__", "logs:__init__"), "it is written"
    ),
    **dict.fromkeys(
        (
            *("cli.doctor:cpu_limit", "cli.doctor:huge_pages"),
            *("distributed.watchdog:_boot", "distributed.watchdog:_process_state"),
        ),
        "the kernel wrote it",
    ),
    "models.hf.loading:_refuse_adapter": "only whether it is there is asked",
    "evaluation.budget.exchange:measure_exchange": "a process of the same command wrote it",
    **dict.fromkeys(
        (
            *("audit.alphabet:read_text", "cli.audit:_beside", "cli.audit:_load_stream"),
            "integrations.lm_eval:__init__",
        ),
        "its bytes are compared, or scored",
    ),
    "audit.evaluator.process:__init__": "it is written",
    "audit.evaluator.process:_ended": "its last line is shown, escaped",
    **dict.fromkeys(("audit.evaluator.worker:main", "errors:_takes_nothing"), "it is /dev/null"),
    "assets.build:main": "for maintainers",
}
"""Functions that open files, and why nothing in a file can damage them."""


def _opening(module: Path) -> set[str]:
    """The functions of a module that name what opens files, as module:function."""
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts).removeprefix("ngram_eval.")
    found = set()

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        called = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
        if OPENING & {called, called.rpartition(".")[2]} and function:
            found.add(f"{name}:{function}")
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(module.read_text()), "")
    return found


def test_each_function_that_opens_files_is_fuzzed_or_takes_any_bytes() -> None:
    modules = [*(ROOT / "ngram_eval").rglob("*.py"), *(ROOT / "train").rglob("*.py")]
    opening = set().union(*(_opening(module) for module in modules if module.name != "files.py"))
    assert opening == {name for reader in READERS for name in reader.opens} | ANY_BYTES.keys()


@pytest.mark.parametrize(
    ("name", "make"), [pytest.param(name, make, id=f"{name}: {what}") for name, what, make in FAILED]
)
def test_what_once_broke_a_reader_is_refused(name: str, make: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (reader,) = (one for one in READERS if one.name == name)
    path = tmp_path / reader.file
    path.write_bytes(make(reader.seeds()[0]))
    outcome = read(reader, path, 0)
    assert outcome.kind == "refusal", outcome.message
