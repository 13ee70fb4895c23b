"""A run as a page to look at, and one explanation as a picture."""

from fgvce_jax.report.compare import write_comparison
from fgvce_jax.report.figures import card_figure
from fgvce_jax.report.page import MOST_CARDS, write_report
from fgvce_jax.report.sources import View

__all__ = ["MOST_CARDS", "View", "card_figure", "write_comparison", "write_report"]
