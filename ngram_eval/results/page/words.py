"""What the page says in words: the headline, what each preset is, and what it was run on."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ngram_eval.bpb import bits_per_byte
from ngram_eval.config import PRESETS, EvalConfig
from ngram_eval.evaluation.job import SOURCES
from ngram_eval.evaluation.result import Result
from ngram_eval.results.bootstrap import Interval
from ngram_eval.results.compare import Comparison, paired
from ngram_eval.results.result_file import run_of
from ngram_eval.results.table import config_of

HOW = Comparison(against="neural")
PAGES = {
    "hashed": "docs/method.md",
    "exact": "docs/exact.md",
    "mixer": "docs/mixer.md",
    "ppmd": "docs/honesty.md",
}
"""Family of scorers -> the page that describes it."""
_USED = {
    "hashed": ("window", "ngram", "gate"),
    "exact": ("window", "ngram.min_order", "ngram.max_order", "exact"),
    "mixer": ("window", "ngram.min_order", "ngram.max_order", "mixer"),
    "ppmd": ("window", "ngram.min_order", "ngram.max_order", "ppmd"),
}
"""Family of scorers -> the settings that it reads, besides scorer and byte_rule."""


def each(result: Result) -> str:
    """What bits are counted for: byte, or token where bytes are not known."""
    return "byte" if result.bytes else "token"


def bits(result: Result, *, neural: bool = False) -> float:
    """Bits per byte, or per token where bytes are not known; with `neural`, of the model alone."""
    found = bits_per_byte(result.neural_nats if neural else result.nats, result.bytes or result.positions)
    assert found is not None, "something was scored"
    return found


def difference(result: Result) -> Interval | None:
    """The difference from the model alone with its interval; None where too little was scored for one."""
    run = run_of(result)
    return paired(run, run, each(result), HOW, neural=True).interval


def headline(results: list[Result]) -> Iterator[tuple[str, str]]:
    """What was found, (class of the paragraph, sentences): the best probability first, then scores that are none."""
    proper = [result for result in results if result.normalised]
    if proper:
        best = min(proper, key=bits)
        ours, alone = bits(best), bits(best, neural=True)
        change = (
            f"{abs(ours / alone - 1):.1%} {'less' if ours < alone else 'more'} than" if ours != alone else "as with"
        )
        yield "lead", f"With {best.preset} the text takes {ours:.4f} bits per {each(best)}: {change} the model alone."
        found = difference(best)
        if found is not None:
            yield (
                "soft",
                f"The model alone takes {alone:.4f}. The {HOW.confidence:.0%} interval of the difference is "
                f"{found.low:+.4f} to {found.high:+.4f} (block bootstrap, on text like this).".replace("-", "\u2212"),
            )
    scores = [result for result in results if not result.normalised]
    if scores:
        named = listed([f"{result.preset} ({bits(result):.4f})" for result in scores])
        sums = [f"{result.vocabulary_sum:.4g}" for result in scores if result.vocabulary_sum is not None]
        which = f"sum to {listed(sums)} on average, not to 1" if sums else "need not sum to 1"
        yield (
            "note warn",
            f"No code length: {named}. Each is the score of a pseudo-probability, whose values over the vocabulary "
            f"{which}.",
        )


def listed(words: list[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def about(result: Result) -> str:
    """One sentence on the preset: its own, or its family's if it was configured from Python."""
    made = PRESETS.get(result.preset)
    if made is None or made.__doc__ is None:
        return f"A configuration of the scorer {config_of(result).scorer}."
    return made.__doc__.partition("\n\n")[0].replace("\n", " ")


def facts(result: Result) -> Iterator[tuple[str, str]]:
    """(name, value) of what a section begins with."""
    yield "model", model(result)
    if result.memory is not None:
        names = [Path(one["path"]).name for one in result.inputs if one["role"] == "memory"]
        yield "memory", f"{result.memory['tokens']:,} tokens counted before the text, of {', '.join(names)}"
    yield "finished", result.finished.replace("T", " ").replace("+00:00", " UTC")
    yield "command", command(result)
    yield "described in", PAGES[config_of(result).scorer]


def model(result: Result) -> str:
    """The file or the name of the model, and how it was run."""
    names = [Path(one["path"]).name for one in result.inputs if one["role"] in SOURCES]
    return ", ".join([*(names or [result.neural_source]), *result.neural_settings.values()])


def command(result: Result) -> str:
    """The command line, or the function that was called."""
    flags = result.arguments
    return "ngram_eval.evaluate(...)" if flags is None else shlex.join(["ngram-eval", "run", *flags])


def used(config: EvalConfig) -> dict[str, Any]:
    """The settings that the preset reads, by their full names."""
    found = {
        name: value
        for name, value in flat(config.to_json())
        if "." not in name or any(f"{name}.".startswith(f"{part}.") for part in _USED[config.scorer])
    }
    idle = []
    if config.gate.alpha_range:
        idle.append("gate.alpha_fixed")
    if config.exact.tilt != "fixed":
        idle.append("exact.tilt_beta")
    if config.exact.tilt == "off":
        idle.append("exact.tilt_confidence")
    return {name: value for name, value in found.items() if name not in idle}


def flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(full name, value) of each setting of a tree of them."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
