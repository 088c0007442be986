"""Whole evaluators: a function that gets a stream and says what it charged is audited from outside, by substitution.

`process` runs it apart (`worker` is the program of that process), `ask` puts the questions and remembers the answers,
`streams` makes what is asked, `case` mixes the questions of all askers, and `sums`, `sweep`, `changes`, `memory` and
`counts` hold askers and probes, which `audit` lists.
"""
