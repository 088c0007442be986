"""The kinds of subjects, one a module: a scorer over a neural source, a function of the past, a file of claims."""
