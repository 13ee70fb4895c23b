"""How many explanations stay the same when the backbone computes in bfloat16: on real mistakes.

The shipped classifier's mistakes on the birds, with the same bank (of the float32 classifier).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from planted import same_edits
from timing import finish, parser, show

import fgvce_jax as fg
from fgvce_jax.data.birds import Birds
from fgvce_jax.data.pipeline import image_loader


def main() -> None:
    """Explain every mistake in both precisions and compare."""
    arguments = parser(__doc__)
    arguments.add_argument("--images", type=int, default=1000, help="of the test split")
    options = arguments.parse_args()
    clf = fg.load_classifier("checkpoints/birds")
    test, train = Birds("test"), Birds("train")
    bank = fg.build_bank(clf, image_loader(train, 100, clf.image_size), train.labels)
    images = test.images(np.arange(options.images)).astype(np.float32) / 255
    labels = test.labels[: options.images]
    both = clf, clf.astype(jnp.bfloat16)
    classify = jax.jit(lambda c, x: c(x).argmax(-1))
    starts = range(0, options.images, 100)
    predicted = [np.concatenate([classify(c, images[i : i + 100]) for i in starts]) for c in both]
    wrong = np.flatnonzero((predicted[0] != labels) & (predicted[1] != labels))
    exact, rough = (jax.device_get(fg.explain(c, bank, images[wrong], labels[wrong])) for c in both)
    correlation = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for a, b in zip(exact.dominant, rough.dominant, strict=True)
    ]
    result = {
        "images": options.images,
        "same_prediction": float((predicted[0] == predicted[1]).mean()),
        "mistakes_of_both": len(wrong),
        "same_first_edit": float(same_edits(exact, rough, first=1).mean()),
        "same_edits": float(same_edits(exact, rough).mean()),
        "median_correlation_of_dominant_maps": float(np.nanmedian(correlation)),
    }
    show(result)
    finish(options, {"name": "agreement", **result}, clf)


if __name__ == "__main__":
    main()
