"""Triton kernels of the evaluator, imported as `ngram_eval.kernels`.

`tables` counts and looks up; `windows` scores windows against the tables; `stats` reduces logits to what the evaluator
needs. `hashing`, `gating` and `runtime` hold what several of them share. The rest of the package uses `tables` and
`windows` through `ngram_eval.scorers.hashed.triton` and `device_scorer`, and `stats` through
`ngram_eval.models.transformer_source`. Kernels import only settings and constants from it: `config`, `bpb`, `errors`
and `scorers.hashed.hashing`.

All functions take tensors on one device and only launch: they neither allocate nor wait, so a CUDA graph can capture
them. No kernel adds floats atomically, so results do not change from run to run. `docs/gpu.md` has the costs.
"""
