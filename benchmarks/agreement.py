"""How many explanations stay the same when the backbone computes in bfloat16: on real mistakes.

    python benchmarks/agreement.py --json out.json

The shipped classifier's mistakes on the birds, with the same bank (of the float32 classifier).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from common import describe, machine

import fgvce_jax as fg
from fgvce_jax.data.birds import Birds
from fgvce_jax.data.pipeline import image_loader


def main() -> None:
    """Explain every mistake in both precisions and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=int, default=1000, help="of the test split")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()

    clf = fg.load_classifier("checkpoints/birds")
    test, train = Birds("test"), Birds("train")
    bank = fg.build_bank(clf, image_loader(train, 100, clf.image_size), train.labels)
    images = test.images(np.arange(options.images)).astype(np.float32) / 255
    labels = test.labels[: options.images]
    half = clf.astype(jnp.bfloat16)
    said = [
        np.concatenate(
            [
                jax.jit(lambda c, x: c(x).argmax(-1))(c, x)
                for x in np.split(images, len(images) // 100)
            ]
        )
        for c in (clf, half)
    ]
    wrong = np.flatnonzero((said[0] != labels) & (said[1] != labels))
    exact, rough = (
        jax.device_get(fg.explain(c, bank, images[wrong], labels[wrong])) for c in (clf, half)
    )
    first = (exact.edit_cell[:, 0] == rough.edit_cell[:, 0]) & (
        exact.edit_candidate[:, 0] == rough.edit_candidate[:, 0]
    )
    same = np.all(exact.edit_cell == rough.edit_cell, -1) & np.all(
        exact.edit_candidate == rough.edit_candidate, -1
    )
    correlation = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(exact.dominant, rough.dominant, strict=True)
    ]
    result = {
        "benchmark": "agreement",
        "machine": machine(),
        "images": options.images,
        "same_prediction": float((said[0] == said[1]).mean()),
        "mistakes_of_both": len(wrong),
        "same_first_edit": float(first.mean()),
        "same_edits": float(same.mean()),
        "median_correlation_of_dominant_maps": float(np.nanmedian(correlation)),
    }
    print(
        f"bfloat16 and float32: same prediction {result['same_prediction']:.1%} of "
        f"{options.images}; of {len(wrong)} mistakes of both, same first edit "
        f"{result['same_first_edit']:.1%}, same edits {result['same_edits']:.1%}; dominant maps "
        f"correlate with {result['median_correlation_of_dominant_maps']:.3f} in the median. "
        f"On {describe(result['machine'])}."
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
