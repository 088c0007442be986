"""Whole evaluators: a function that gets a stream and says what it charged is audited from outside, by substitution.

`process` runs it apart (`worker` is the program of that process), `ask` puts the questions and remembers the answers,
`streams` makes what is asked, and `sums`, `changes` and `counts` hold the probes, which `audit` lists.
"""
