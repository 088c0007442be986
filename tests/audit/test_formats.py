"""What other programs get of an audit: JSON by its schema, SARIF, annotations, a table to paste."""

import json
from pathlib import Path
from typing import Any

import pytest

from ngram_eval.audit.evaluator.audit import PROBES as OF_EVALUATORS
from ngram_eval.audit.finding import Audited, Finding, Probe, Reach
from ngram_eval.audit.formats import annotations, summary, write_json, write_sarif
from ngram_eval.audit.probes import PROBES

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "audit.schema.json").read_text())


def probe(name: str, essential: bool = False) -> Probe[Any]:
    def ask(case: Any) -> Finding:
        """What is asked."""
        raise NotImplementedError

    return Probe(name, "mean |Σ - 1|", ask, essential, "what hides")


AUDITED = [
    Audited(
        "mine|yours",
        (probe("sum to 1", essential=True), probe("future unseen"), probe("size")),
        (
            Finding("refuted", float("inf"), "100 %: position 7,\nmore than 1", {"worst": float("nan")}, Reach(3, 9)),
            Finding("inconclusive", 0.0, "given"),
            Finding("not applicable", None, "none"),
        ),
    )
]
SETTINGS = {"data": ["a.bin"], "positions": 9, "of": 90, "samples": 3, "cuts": 2, "seed": 5}


def problems(value: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """What of a value a schema forbids: of JSON Schema, what ours uses."""
    if "$ref" in schema:
        return problems(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], where)
    if "oneOf" in schema:
        return [] if any(not problems(value, one) for one in schema["oneOf"]) else [f"{where} is none of them"]
    known = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    wrong = [] if not kinds or any(_is(value, known.get(kind, type(None))) for kind in kinds) else [f"{where}: {kinds}"]
    wrong += (
        [] if value in schema.get("enum", [value]) and value == schema.get("const", value) else [f"{where}: {value}"]
    )
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        wrong += [f"{where} lacks {name}" for name in schema.get("required", []) if name not in value]
        if schema.get("additionalProperties") is False:
            wrong += [f"{where} has {name}" for name in value if name not in properties]
        for name, one in properties.items():
            wrong += problems(value[name], one, f"{where}.{name}") if name in value else []
    if isinstance(value, list):
        wrong += [said for one in value for said in problems(one, schema.get("items", {}), f"{where}[]")]
    return wrong


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def test_json_is_as_its_schema_says(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", AUDITED, SETTINGS)
    found = json.loads((tmp_path / "a.json").read_text())
    assert problems(found, SCHEMA) == []
    assert found["verdict"] == "refuted"
    assert found["audits"][0]["probes"][0]["value"] is None
    assert found["audits"][0]["unsettled"] == ["sum to 1"]
    assert [one["misses"] for one in found["audits"][0]["probes"]] == [
        "a fault at 1 % of the positions with 97%, at 63 % with 5%; what hides",
        "what hides",
        "",
    ]


@pytest.mark.parametrize("change", [{"verdict": "fine"}, {"audits": [{}]}, {"more": 1}, {"settings": {"seed": "5"}}])
def test_the_schema_refuses_what_is_not_so(tmp_path: Path, change: dict[str, Any]) -> None:
    write_json(tmp_path / "a.json", AUDITED, SETTINGS)
    assert problems({**json.loads((tmp_path / "a.json").read_text()), **change}, SCHEMA)


def test_sarif_names_rules_results_and_the_file(tmp_path: Path) -> None:
    write_sarif(tmp_path / "a.sarif", AUDITED, "eval.py")
    log = json.loads((tmp_path / "a.sarif").read_text())
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["sum-to-1", "future-unseen", "size"]
    assert run["tool"]["driver"]["rules"][0]["shortDescription"] == {"text": "What is asked."}
    assert run["tool"]["driver"]["rules"][0]["fullDescription"] == {"text": "What is asked. Misses: what hides."}
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [
        ("sum-to-1", "error"),
        ("future-unseen", "warning"),
    ]
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "eval.py"
    assert "fault at 63 % of them or more" in run["results"][0]["message"]["text"]


def test_annotations_are_lines_that_github_reads() -> None:
    lines = list(annotations(AUDITED, "verdict: refuted: mine", "a,b.py"))
    assert lines[0].startswith(
        "::error file=a%2Cb.py,title=mine|yours%3A sum to 1::100 %25: position 7,%0Amore than 1 (3 of"
    )
    assert lines[1] == "::warning file=a%2Cb.py,title=mine|yours%3A future unseen::given"
    assert lines[2:] == ["::notice title=audit::verdict: refuted: mine"]


def test_the_summary_is_a_table_of_markdown() -> None:
    said = summary(AUDITED, "verdict: refuted: mine").splitlines()
    assert said[0] == "**verdict: refuted: mine**"
    assert said[2:7] == [
        "| probe | mine\\|yours |",
        "|---|---|",
        "| 1 sum to 1 (mean \\|Σ - 1\\|) | ✗ inf |",
        "| 2 future unseen (mean \\|Σ - 1\\|) | ? 0 |",
        "| 3 size (mean \\|Σ - 1\\|) | - |",
    ]
    assert said[-2].startswith("- ✗ mine|yours, sum to 1: 100 %: position 7, more than 1")


def test_every_probe_says_what_must_hold_and_what_it_misses() -> None:
    probes: list[Probe[Any]] = [*PROBES, *OF_EVALUATORS]
    for one in probes:
        assert one.asks != one.name
        assert one.asks.endswith(".")
        assert one.misses


def test_the_summary_says_how_often_was_asked_and_what_can_be_missed() -> None:
    said = [line for line in summary(AUDITED, "verdict: refuted: mine").splitlines() if "What is asked." in line]
    assert said == [
        "| 1 sum to 1 | What is asked. | 3 of 9 positions | a fault at 1 % of the positions with 97%, at 63 % with 5%; "
        "what hides |",
        "| 2 future unseen | What is asked. | the whole | what hides |",
    ]
