"""Every kind of fault that the field has met, each a scorer of a few lines, and honest scorers that look odd.

A module a kind of subject; `cases` collects them. A fault's first docstring line says what it does wrong.
"""
