"""Train on shards and export the artifact: `python -m ngram_eval.train --preset embedded --data 'x_*.bin' --out m.ngev`."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
import tyro

from ngram_eval import artifact
from ngram_eval.errors import InputError, exit_on_input_error
from ngram_eval.model import parameter_count
from ngram_eval.presets import preset_of
from ngram_eval.tokens import check_vocabulary, read_shards
from ngram_eval.train.config import PRESETS, TrainConfig
from ngram_eval.train.loop import train
