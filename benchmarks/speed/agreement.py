"""How many explanations stay the same when the backbone computes in bfloat16: on real mistakes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from planted import same_edits
from timing import script, show, stamp

import fgvce_jax as fg
from fgvce_jax.data.birds import Birds
from fgvce_jax.data.pipeline import image_loader


def measure(images: int = 1000) -> dict[str, Any]:
    """The shipped classifier's mistakes on the birds in both precisions, with one bank."""
    clf = fg.load_classifier("checkpoints/birds")
    test, train = Birds("test"), Birds("train")
    bank = fg.build_bank(clf, image_loader(train, 100, clf.image_size), train.labels)
    pixels, labels = np.float32(test.images(np.arange(images))) / 255, test.labels[:images]
    both = clf, clf.astype(jnp.bfloat16)
    classify = jax.jit(lambda c, x: c(x).argmax(-1))
    starts = range(0, images, 100)
    predicted = [np.concatenate([classify(c, pixels[i : i + 100]) for i in starts]) for c in both]
    wrong = np.flatnonzero((predicted[0] != labels) & (predicted[1] != labels))
    exact, rough = (jax.device_get(fg.explain(c, bank, pixels[wrong], labels[wrong])) for c in both)
    maps = (out.dominant.reshape(len(wrong), -1) for out in (exact, rough))
    correlation = [np.corrcoef(pair)[0, 1] for pair in zip(*maps, strict=True)]
    result = {
        "images": images,
        "same_prediction": float((predicted[0] == predicted[1]).mean()),
        "mistakes_of_both": len(wrong),
        "same_first_edit": float(same_edits(exact, rough, first=1).mean()),
        "same_edits": float(same_edits(exact, rough).mean()),
        "median_correlation_of_dominant_maps": float(np.nanmedian(correlation)),
    }
    return {"provenance": stamp(clf), **show(result)}


if __name__ == "__main__":
    script(measure, images="of the test split")
