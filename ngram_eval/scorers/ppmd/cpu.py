"""The byte mixture in C++ (`csrc/ppmd/ppmd.h`), one thread."""

from ngram_eval import _core
from ngram_eval.config import PpmdConfig
from ngram_eval.scorers.ppmd.model import ByteSpelling, CountsOnly


class CpuPpmd(CountsOnly, _core.Ppmd):
    """`ngram_eval.scorers.ppmd.model.Ppmd` in C++."""

    def __init__(self, config: PpmdConfig, max_order: int, spelling: ByteSpelling) -> None:
        super().__init__(
            surfaces=spelling.surfaces,
            bare=spelling.bare,
            max_order=max_order,
            target_gate=config.byte_gate == "target",
            marginal=config.byte_share == "marginal",
            sure_above=config.sure_above,
            weight=config.model_weight,
            weight_sure=config.model_weight_sure,
        )
