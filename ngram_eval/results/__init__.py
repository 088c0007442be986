"""Presentation of results: tables, result files, pages, comparisons, explained predictions."""
