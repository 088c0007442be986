"""The mixer in C++ (`csrc/mixer/mixer.h`), one thread."""

from ngram_eval import _core
from ngram_eval.config import MixerConfig
from ngram_eval.scorers.mixer.model import Spelling


class CpuMixer(_core.Mixer):
    """`ngram_eval.scorers.mixer.model.Mixer` in C++."""

    def __init__(self, config: MixerConfig, spelling: Spelling, *, weight: float) -> None:
        super().__init__(
            rank=spelling.rank,
            surfaces=spelling.surfaces,
            hashed=config.contexts,
            sets=config.weight_sets,
            matches=config.matches,
            exact_order=config.exact_order,
            runs=config.runs,
            cells=config.cells,
            groups=config.groups,
            weight=weight,
        )
