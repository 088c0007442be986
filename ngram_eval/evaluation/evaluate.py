"""The method: a stream's bits per byte in six steps, tokens → windows → logits → counts → blend → bits per byte.

`evaluate` takes these steps for one rank and one preset; `evaluate_all` evaluates several presets on every rank.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain

from ngram_eval.bpb import Tally
from ngram_eval.config import EvalConfig
from ngram_eval.distributed.ranks import ALONE, Ranks
from ngram_eval.evaluation.checkpoint import Checkpoint, Record, fingerprint
from ngram_eval.evaluation.engine import Engine
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.evaluation.job import Input, Job, load_learned
from ngram_eval.evaluation.learning import learned_on
from ngram_eval.evaluation.profile import Profile
from ngram_eval.evaluation.reader import Reader
from ngram_eval.evaluation.result import Found, Result, summarise
from ngram_eval.evaluation.schedule import pipelined, sharded, sharing_of
from ngram_eval.evaluation.settings import CheckpointSettings, Settings
from ngram_eval.evaluation.watch import Watch
from ngram_eval.files import working_in
from ngram_eval.models.saved_scores import RememberingSource
from ngram_eval.models.source import UniformSource
from ngram_eval.scorers.make import windows_at_once
from ngram_eval.text.windows import Grid, Plan
from ngram_eval.timing import Stopwatch, Track, untracked


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The sums of one rank; the tallies and profiles of all ranks and of `before` add up to the result."""

    tally: Tally
    """Sums over its share of the stream."""
    profile: Profile
    """Profile of its share of the stream."""
    before: Record
    """Record of the earlier run whose checkpoint was resumed."""
    sharing: str
    prefill: str | None
    """How a sharded rank got the counts before its stretch."""
    complete: bool
    """False if ctrl-C ended the evaluation early."""


Look = Callable[[Engine, Callable[[], Share]], None]
"""Called by the engine after each batch that it scored, with a function that makes the rank's share so far."""


def evaluate(
    job: Job,
    name: str,
    config: EvalConfig,
    *,
    saving: CheckpointSettings,
    clock: Stopwatch,
    track: Track = untracked,
    interrupt: Interrupt | None = None,
    look: Look | None = None,
) -> Share:
    """Evaluate this rank's share of the stream under `config`; an interrupt ends it early."""
    tokens, source, ranks, hardware = job.stream.tokens, job.source, job.ranks, job.settings.hardware
    if job.settings.data.learn and config.learns_online:
        with clock.stage("learn"):
            job = job.after_learning(learned_on(job, {name: config}, track))
    plan = Plan(job.targets(config.window), config.window)  # windows
    sharing, saved, before = sharing_of(hardware.ngram, name, config, hardware.backend), None, Record()
    if saving.checkpoint is not None:
        with clock.stage("checkpoint"):
            here = saving.checkpoint / name
            saved = Checkpoint(here, fingerprint(job, config, sharing), ranks, saving.every)
            before = saved.begin(saving.resume)
            before.check(plan, here)

    scorer = job.scorer(config)  # counts and blend
    if before.done:
        load_learned(scorer, before.learned, f"{saving.checkpoint}/{name}")
    grid = Grid(plan, windows_at_once(config, source))
    tree = None if source.name == UniformSource.name else scorer.tree  # its one row serves all positions
    rows = config.needs_rows and tree is None
    reader = Reader(tokens, source, grid, job.samples(config.window), rows, clock, interrupt, tree)  # logits
    engine = Engine(
        tokens=tokens,
        plan=plan,
        scorer=scorer,
        tokenizer=job.tokenizer,
        byte_rule=config.byte_rule,
        clock=clock,
        track=lambda positions: track(name, positions),
        checkpoint=saved,
    )

    def share_of(tally: Tally, prefill: str | None, *, complete: bool) -> Share:
        return Share(
            tally=tally, profile=engine.profile, before=before, sharing=sharing, prefill=prefill, complete=complete
        )

    if look is not None:
        engine.watch = lambda: look(engine, lambda: share_of(engine.so_far(), None, complete=False))
    prefill = None
    if sharing == "pipelined":
        tally = pipelined(reader, engine, before, ranks)  # bits per byte
    else:
        tally, prefill = sharded(reader, engine, before, config, ranks, hardware.batch_windows, hardware.prefill)
    return share_of(tally, prefill, complete=interrupt is None or not interrupt.asked)


def _alone(saving: CheckpointSettings, name: str, ranks: Ranks) -> AbstractContextManager[None]:
    """A context in which no other run uses the checkpoint of this preset; it is rank 0 that holds the lock."""
    if saving.checkpoint is None or ranks.rank > 0:
        return nullcontext()
    return working_in("--checkpoint", saving.checkpoint / name)


def evaluate_all(
    job: Job,
    configs: Mapping[str, EvalConfig],
    inputs: Sequence[Input],
    settings: Settings | None,
    *,
    clock: Stopwatch,
    saving: CheckpointSettings | None = None,
    keep_scores: bool = False,
    track: Track = untracked,
    interrupt: Interrupt | None = None,
    watch: Watch | None = None,
) -> Iterator[Result]:
    """Yield the result of each preset (name -> configuration), the same on every rank; all ranks call this.

    `inputs` and `settings` are recorded in the result; without settings it can't be run again. A `RememberingSource`
    gives the statistics of one preset to the next; with `keep_scores` every rank has all of them at the end. An
    interrupt ends the results with a partial one, if anything was scored. A `watch` on rank 0 is shown the results so
    far, by the thread that scores. Raises `InputError` if a file of the job was
    changed meanwhile.
    """
    source = job.source if isinstance(job.source, RememberingSource) else None
    saving = saving or CheckpointSettings()
    for name, config in configs.items():
        reused_before = source.reused if source else 0
        look = None if watch is None else _look(watch, job, name, config, inputs, settings, clock)
        with _alone(saving, name, job.ranks):
            share = evaluate(job, name, config, saving=saving, clock=clock, track=track, interrupt=interrupt, look=look)
        job.files.check()  # their sha256s are of the time before
        if not share.complete and not (share.tally + share.before.tally).positions:
            return
        if source is not None and job.ranks.world > 1 and (keep_scores or name != list(configs)[-1]):
            with clock.stage("exchange"):
                source.exchange(job.ranks)
        found = of_all_ranks(share, job.ranks, clock, reused=source.reused - reused_before if source else 0)
        yield summarise(job, name, config, found, inputs, settings)
        if not share.complete:
            return
        clock = Stopwatch()


def _look(
    watch: Watch,
    job: Job,
    name: str,
    config: EvalConfig,
    inputs: Sequence[Input],
    settings: Settings | None,
    clock: Stopwatch,
) -> Look:
    def look(engine: Engine, share: Callable[[], Share]) -> None:
        if watch.due(name):
            with clock.stage("live"):
                found = of_all_ranks(share(), ALONE, clock, reused=0)
                watch.show(summarise(job, name, config, found, inputs, settings), engine.passed, engine.expected)

    return look


def of_all_ranks(share: Share, ranks: Ranks, clock: Stopwatch, *, reused: int) -> Found:
    """The sums of all ranks and of the earlier run together; every rank calls this."""
    spent = dict(clock.seconds)  # other threads may add to it meanwhile
    tallies, seconds, reuses = zip(*ranks.gather((share.tally, spent, reused)), strict=True)
    profile = share.profile
    ranks.all_reduce(profile.along, "sum")
    ranks.all_reduce(profile.cells, "sum")
    weighted, samples = zip(*ranks.gather((profile.weighted, profile.samples)), strict=True)
    profile = replace(profile, weighted=any(weighted), samples=sorted(chain.from_iterable(samples)))
    return Found(
        tally=sum(tallies, share.before.tally),
        profile=profile if share.before.profile is None else profile + share.before.profile,
        seconds={stage: max(one.get(stage, 0.0) for one in seconds) for one in seconds for stage in one},
        reused=sum(reuses),
        sharing=share.sharing,
        prefill=share.prefill,
        resumed_positions=share.before.tally.positions,
        complete=share.complete,
        finished=ranks.broadcast(datetime.now(timezone.utc).isoformat(timespec="seconds")),
    )
