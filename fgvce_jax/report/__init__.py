"""A run as a page to look at, and one explanation as a picture."""

from fgvce_jax.report.figures import card_figure
from fgvce_jax.report.page import write_report

__all__ = ["card_figure", "write_report"]
