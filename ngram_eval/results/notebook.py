"""A result that a notebook shows."""

from dataclasses import dataclass, fields

from ngram_eval.evaluation.result import Result


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class NotebookResult(Result):
    """A result that shows its table and charts where it is the value of a notebook's cell."""

    @classmethod
    def of(cls, result: Result) -> "NotebookResult":
        """The same result, to be shown."""
        return cls(**{field.name: getattr(result, field.name) for field in fields(result)})

    def _repr_html_(self) -> str:
        from ngram_eval.results.page.html import inline  # only a notebook needs it, and it takes a while to import

        return inline([self])
