"""Models that can't be are refused."""

import math
from typing import Any

import pytest

from ngram_eval.errors import InputError
from ngram_eval.models.transformer_config import MAX_LAYERS, MAX_SIZE, ModelConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"layers": MAX_LAYERS + 1}, "layers is 1025"),
        ({"width": MAX_SIZE + 8}, "width is"),
        ({"width": 100}, "must divide"),
        ({"kv_heads": 3}, "must divide"),
        ({"mlp_hidden": 0}, "mlp_hidden is 0"),
        ({"bigram_slots": -1}, "bigram_slots is -1"),
        ({"bigram_slots": 1}, "bigram_slots is 1"),
        ({"bigram_width": 0}, "bigram_width is 0"),
        ({"value_width": 0}, "value_width is 0"),
        ({"rope_dims": 3}, "rope_dims is 3"),
        ({"rope_dims": 2}, "rope_dims is 2"),
        ({"rope_dims": 66}, "rope_dims is 66"),
        ({"rope_dims": -2}, "rope_dims is -2"),
        ({"bos_id": 1024}, "bos_id is 1024"),
        ({"bos_id": -2}, "bos_id is -2"),
        ({"rope_base": 0.5}, "rope_base is 0.5"),
        ({"rope_train_len": 0}, "rope_train_len is 0"),
        ({"xsa_layers": -1}, "xsa_layers is -1"),
        ({"value_layers": (11,)}, "layers are 0 to 10"),
        ({"value_layers": (-1,)}, "layers are 0 to 10"),
        ({"value_layers": (9, 9)}, "each layer once"),
        ({"mtp_heads": -1}, "mtp_heads is -1"),
        ({"logit_softcap": -1.0}, "logit_softcap is -1"),
        ({"logit_softcap": math.nan}, "logit_softcap is nan"),
        ({"leaky_slope": math.inf}, "leaky_slope is inf"),
        ({"q_gain": math.nan}, "q_gain is nan"),
        ({"table_init_std": -0.1}, "table_init_std is -0.1"),
        ({"table_dtype": "float16"}, "table_dtype is 'float16'"),
    ],
)
def test_bad_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelConfig(**change)
