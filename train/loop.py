"""The loop of a run, from its first step or a checkpoint to its end: steps, logs, validation and checkpoints."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ngram_eval.errors import InputError
from ngram_eval.evaluation.interrupt import Interrupt
from ngram_eval.files import working_in
from ngram_eval.logs import Sink
from ngram_eval.models.transformer import Transformer
from ngram_eval.train import snapshot
from ngram_eval.train.averaging import put
from ngram_eval.train.journal import SINKS, Entry, Live, cut, open_sinks
from ngram_eval.train.trainer import Trainer
from ngram_eval.train.validate import Score, Validation

CHECKPOINT = "checkpoint.safetensors"
"""Name of the checkpoint in the run's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Logs, checkpoints and validation of a run."""

    folder: Path | None = None
    """Folder for log.jsonl and checkpoint.safetensors, made if it does not exist. Default: neither is written."""
    resume: bool = False
    """Resume from the folder's checkpoint."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only at the end, where one is always written."""
    stop_after: int = 0
    """Stop at this step with a checkpoint and without an artifact, to be resumed later; 0: do not stop."""
    log_every: int = 10
    """Steps between entries of the log."""
    log: tuple[str, ...] = ()
    """Further logs besides log.jsonl: csv, tensorboard, wandb (the last two are optional extras)."""
    val_every: int = 0
    """Steps between scores of the validation text; 0: only at the end."""
    quiet: bool = False
    """Show no progress."""
    rank_timeout: float = 30.0
    """Seconds without a sign of life after which a rank counts as lost and the run ends."""

    def check(self) -> None:
        """Raise `InputError` for flags that do not go together or are out of range."""
        for name in ("checkpoint_every", "stop_after", "val_every"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give at least 0")
        if self.log_every < 1:
            raise InputError(f"--log-every is {self.log_every}: give at least 1")
        if not 1.0 <= self.rank_timeout < float("inf"):
            raise InputError(f"--rank-timeout is {self.rank_timeout}: give at least 1 second")
        for name in self.log:
            if name not in SINKS:
                raise InputError(f"--log is {name!r}: choose from {', '.join(SINKS)}")
        if self.folder is None and (self.resume or self.checkpoint_every or self.stop_after or self.log):
            raise InputError("--resume, --checkpoint-every, --stop-after and --log need a --folder")
        if self.folder is not None and (self.folder / CHECKPOINT).exists() and not self.resume:
            raise InputError(f"--folder is {self.folder}, which holds a checkpoint: give --resume, or another folder")


def train(
    trainer: Trainer,
    options: RunOptions,
    validation: Validation | None = None,
    interrupt: Interrupt | None = None,
) -> bool:
    """Take the remaining steps; returns True at the run's end, False if `stop_after` or an interrupt came first.

    Every rank calls this. An interrupt stops after the current step, with a checkpoint, as `stop_after` does.
    """
    config, leading = trainer.config, trainer.ranks.rank == 0
    path = None if options.folder is None else options.folder / CHECKPOINT
    with ExitStack() as stack:
        if leading and options.folder is not None:
            stack.enter_context(working_in("--folder", options.folder))
        if options.resume and path is not None:
            snapshot.resume(path, trainer)
        else:
            trainer.warm_up()
        if options.stop_after and trainer.step >= options.stop_after:
            raise InputError(f"--stop-after is {options.stop_after}: the checkpoint is at step {trainer.step} already")
        judged = Transformer(config.model) if validation is not None else None  # holds the averages that are scored
        sinks: list[Sink] = []
        live = stack.enter_context(Live(config.steps, options.quiet)) if leading else None
        if leading and options.folder is not None:
            cut(options.folder, trainer.step)
            sinks = stack.enter_context(open_sinks(options.folder, options.log))
        logged_step, logged_seconds = trainer.step, trainer.seconds
        while not trainer.done:
            trainer.take_step()
            stopping = trainer.step == options.stop_after or (interrupt is not None and interrupt.asked)
            last = trainer.done or stopping
            entry = None
            score_due = bool(options.val_every) and trainer.step % options.val_every == 0 and not trainer.done
            if trainer.step % options.log_every == 0 or score_due or last:
                score = _score(trainer, validation, judged) if score_due else None
                tokens = (trainer.step - logged_step) * config.batch * config.seq_len
                entry = Entry(
                    step=trainer.step,
                    seconds=round(trainer.seconds, 3),
                    loss=trainer.mean_nats(),
                    lr=trainer.multiplier,
                    tokens_per_second=round(tokens / (trainer.seconds - logged_seconds), 1),
                    val_nats=score.nats if score else None,
                    val_bpb=score.bpb if score else None,
                )
                logged_step, logged_seconds = trainer.step, trainer.seconds
                for sink in sinks:
                    sink.write(entry)
            if live is not None:
                live.show(trainer.step, trainer.seconds_left(), entry)
            due = bool(options.checkpoint_every) and trainer.step % options.checkpoint_every == 0
            if leading and path is not None and (due or last):
                snapshot.save(path, trainer)
            if stopping:
                return trainer.done
    return True


def _score(trainer: Trainer, validation: Validation | None, judged: Transformer | None) -> Score | None:
    """Score the validation text by the weights to be exported; for SWA by the EMA, as its mean is not complete yet."""
    if validation is None or judged is None:
        return None
    put(trainer.weights("raw" if trainer.config.export_weights == "raw" else "ema"), judged.to(trainer.device))
    return validation.score(judged)
