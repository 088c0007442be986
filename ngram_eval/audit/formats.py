"""The findings of an audit for other programs: JSON."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ngram_eval.audit.finding import Audited, outcome_of
from ngram_eval.evaluation.result import installed_versions
from ngram_eval.files import write_text


def write_json(path: Path, audited: Sequence[Audited], settings: dict[str, Any]) -> None:
    """Write `{"verdict", "audits": [...], "settings", "versions", "command"}` atomically."""
    found = {
        "verdict": outcome_of(audited),
        "audits": [_audit(one) for one in audited],
        "settings": settings,
        "versions": installed_versions(),
        "command": sys.argv,
    }
    text = json.dumps(_finite(found), indent=2, allow_nan=False)
    write_text(path, text + "\n")


def _audit(one: Audited) -> dict[str, Any]:
    probes = [
        {
            "number": number,
            "name": probe.name,
            "unit": probe.unit,
            **asdict(found),
            "reach": None if found.reach is None else {**asdict(found.reach), "smallest": found.reach.smallest},
        }
        for number, (probe, found) in enumerate(zip(one.probes, one.findings, strict=True), 1)
    ]
    return {"subject": one.subject, "verdict": one.outcome, "refuted": one.outcome == "refuted", "probes": probes}


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON can't hold."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value
