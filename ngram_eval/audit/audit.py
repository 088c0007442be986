"""An audit: runs every probe on every subject."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ngram_eval.audit.case import Case, Data, Probing
from ngram_eval.audit.claim import Claim
from ngram_eval.audit.finding import Audited, ask
from ngram_eval.audit.probes import PROBES
from ngram_eval.audit.subject import Subject
from ngram_eval.audit.subjects.scorer import ScorerSubject, SharedSource, other_sources
from ngram_eval.config import EvalConfig, WindowConfig
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.evaluation.job import Job
from ngram_eval.models.source import NeuralSource
from ngram_eval.scorers.base import NeuralScorer, Scorer
from ngram_eval.scorers.make import check_source
from ngram_eval.text.stream import Tokens
from ngram_eval.timing import Track


def preset_subjects(job: Job, configs: Mapping[str, EvalConfig], probing: Probing) -> tuple[list[Subject], Tokens]:
    """(the model alone and with each preset, the tokens to audit them on). Raises `InputError`."""
    for config in configs.values():
        check_source(config, job.source)
    source, others = SharedSource(job.source), other_sources(job.source)
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
        return job.scorer(config, backend)

    presets = [replace(alone, name=name, make=make, config=config, remembers=True) for name, config in configs.items()]
    return [alone, *presets], probing.tokens(job.stream, 2 * longest)


def audit(
    subjects: Iterable[Subject], data: Data, claim: Claim, probing: Probing, *, track: Track, interrupt: Interrupt
) -> list[Audited]:
    """The findings of all probes for each subject; after an interrupt, for the subjects that were finished."""
    audited = []
    for subject in interrupt.until(iter(subjects)):
        alone = replace(claim, positions=None, nats=None, loss=None, bytes=None, bpb=None)
        case = Case(subject, data, probing, alone if subject.name == "neural" else claim)
        advance = track(subject.name, len(PROBES))
        findings = []
        for probe in interrupt.until(iter(PROBES)):
            findings.append(ask(probe, case))
            advance(1)
        if len(findings) == len(PROBES):
            audited.append(Audited(subject.name, PROBES, tuple(findings)))
    return audited
