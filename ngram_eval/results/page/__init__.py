"""Charts of results: one HTML page (`--report`), and the same charts as PNG files (`--plot`).

`charts.py` and `rows.py` define the contents of each chart and `words.py` what is said; `svg.py` and `plots.py` draw a
chart, `style.py` has the colours, `html.py` makes the page.
"""

from ngram_eval.results.page.html import Live, write_page
from ngram_eval.results.page.plots import draw_all, require_matplotlib

__all__ = ["Live", "draw_all", "require_matplotlib", "write_page"]
