"""Results to look at: one HTML page (`--report`), and the same charts as PNG files (`--plot`).

`charts.py` says what is in each chart, `svg.py` and `plots.py` draw one, `html.py` is the page around them.
"""

from ngram_eval.results.page.html import write_page
from ngram_eval.results.page.plots import draw_all, require_matplotlib

__all__ = ["draw_all", "require_matplotlib", "write_page"]
