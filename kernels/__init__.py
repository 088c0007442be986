"""Triton kernels of the evaluator, imported as `ngram_eval.kernels`.

`hashing` and `gating` hold what several kernels share; `tables` counts and looks up; `windows` scores windows against
the tables; `stats` reduces logits to what the evaluator needs; `mass` sums the score over the vocabulary; `step` puts
one forward batch's work together. The rest of the package uses them through `ngram_eval.scorers.hashed.triton` and
`ngram_eval.scorers.hashed.device_scorer`.

All functions take tensors on one device and only launch: they neither allocate nor wait, so a CUDA graph can capture
them. No kernel adds floats atomically, so results do not change from run to run. `docs/gpu.md` has the costs.
"""
