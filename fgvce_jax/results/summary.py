"""The summary of a run, as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from fgvce_jax.results.read import read_run


def summary(folder: Path) -> str:
    """The counts and medians of a run, in a few lines; the last names the report."""
    results = read_run(folder)
    counts = results.info["counts"]
    table = results.table.filter(pc.field("status") == "explained")
    seconds = table["time_s"].to_numpy()
    edits = table["num_edits"].to_numpy()[table["flipped"].to_numpy(zero_copy_only=False)]
    lines = [
        f"images          {counts['read']:,}"
        + (f" ({counts['skipped']} skipped)" if counts["skipped"] else ""),
        f"accuracy        {counts['correct'] / max(counts['read'], 1):.1%}",
        f"misclassified   {counts['misclassified']:,}",
        f"explained       {counts['explained']:,}"
        + (f" ({counts['no_reference']} without a reference)" if counts["no_reference"] else ""),
    ]
    if counts["explained"]:
        share = counts["flipped"] / counts["explained"]
        most = (
            f"median {np.median(edits):.0f}, most {edits.max()}" if len(edits) else "none flipped"
        )
        lines += [
            f"flipped         {counts['flipped']:,} ({share:.1%})",
            f"edits           {most}",
            f"time            {1000 * np.median(seconds):.1f} ms per explanation",
        ]
    return "\n".join([*lines, f"report          {folder / 'report.html'}"])
