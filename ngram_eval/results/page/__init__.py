"""Charts of results: one HTML page (`--report`), and the same charts as PNG files (`--plot`).

`charts.py` defines the contents of each chart, `svg.py` and `plots.py` draw a chart, `html.py` makes the page.
"""

from ngram_eval.results.page.html import write_page
from ngram_eval.results.page.plots import draw_all, require_matplotlib

__all__ = ["draw_all", "require_matplotlib", "write_page"]
