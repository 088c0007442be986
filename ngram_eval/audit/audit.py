"""An audit: runs every probe on every subject."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Audited, ask
from ngram_eval.audit.probes import PROBES, Case
from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects import ScorerSubject, SharedSource, other_sources
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.errors import InputError
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.evaluation.job import Job
from ngram_eval.models.source import NeuralSource
from ngram_eval.scorers.base import NeuralScorer, Scorer
from ngram_eval.scorers.make import check_source, make_scorer
from ngram_eval.text.shards import TokenStream
from ngram_eval.text.stream import Tokens
from ngram_eval.text.tokenizer import TextTokenizer
from ngram_eval.timing import Track


@dataclass(frozen=True, kw_only=True, slots=True)
class Probing:
    """How much of the data is probed, and how thoroughly."""

    positions: int = 4096
    """Number of positions to audit, from the start of the data; 0 for all. Every probe scores them several times."""
    samples: int = 128
    """Number of positions at which whole distributions are checked."""
    cuts: int = 2
    """Number of places; all tokens after a place are replaced."""
    seed: int = 0
    """Seed of the random choices."""

    def check(self) -> None:
        """Raise `InputError` for numbers out of range."""
        if self.samples < 1 or self.cuts < 1 or self.positions < 0:
            raise InputError("--samples and --cuts are at least 1, --positions is at least 0")
        if self.cuts > self.samples:
            raise InputError(f"--cuts is {self.cuts}: give no more than --samples ({self.samples})")

    def tokens(self, stream: TokenStream, at_least: int) -> Tokens:
        """The tokens to audit: those of `positions` positions, but at least `at_least`, and the last target."""
        positions = max(self.positions, at_least) if self.positions else len(stream.tokens) - 1
        tokens: Tokens = stream.tokens[: positions + 1]
        return tokens


def preset_subjects(job: Job, configs: Mapping[str, EvalConfig], probing: Probing) -> tuple[list[Subject], Tokens]:
    """(the model alone and with each preset, the tokens to audit them on). Raises `InputError`."""
    for config in configs.values():
        check_source(config, job.source)
    source, others, threads = SharedSource(job.source), other_sources(job.source), job.threads
    longest = max(source.train_seq_len, *(one.window.seq_len for one in configs.values()))
    window = next(iter(configs.values())).window
    neural = EvalConfig(window=WindowConfig(seq_len=window.seq_len, stride=window.stride))
    alone = ScorerSubject(
        name="neural",
        make=lambda backend, config, source: NeuralScorer(),
        config=neural,
        source=source,
        tokenizer=job.tokenizer,
        backend=job.backend,
        others=others,
        remembers=False,
    )

    def make(backend: str, config: EvalConfig, source: NeuralSource) -> Scorer:
        return make_scorer(backend, config, threads, job.vocabulary)

    presets = [replace(alone, name=name, make=make, config=config, remembers=True) for name, config in configs.items()]
    return [alone, *presets], probing.tokens(job.stream, 2 * longest)


def audit(
    subjects: Iterable[Subject],
    tokens: Tokens,
    tokenizer: TextTokenizer | None,
    claim: Claim,
    probing: Probing,
    *,
    artifact: Path | None,
    text: bytes | None,
    track: Track,
    interrupt: Interrupt,
) -> list[Audited]:
    """The findings of all probes for each subject; after an interrupt, for the subjects that were finished.

    `artifact` is the model's file; a claim may state its size. `text` is what the tokens were cut from, if known.
    """
    audited = []
    for subject in interrupt.until(iter(subjects)):
        case = Case(
            subject,
            tokens,
            tokenizer,
            samples=probing.samples,
            cuts=probing.cuts,
            seed=probing.seed,
            claim=claim if subject.name != "neural" else replace(claim, positions=None, nats=None, bytes=None),
            artifact=artifact,
            text=text,
        )
        advance = track(subject.name, len(PROBES))
        findings = []
        for probe in interrupt.until(iter(PROBES)):
            findings.append(ask(probe, case))
            advance(1)
        if len(findings) == len(PROBES):
            audited.append(Audited(subject.name, PROBES, tuple(findings)))
    return audited
