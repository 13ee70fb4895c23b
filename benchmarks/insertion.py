"""What insertion and deletion cost: their time over that of as many plain forward passes.

Random weights and images; needs jax, flax, numpy and this package.

    python benchmarks/insertion.py --json insertion.json
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
from common import describe, machine, median_times

from fgvce_jax.metrics import faithfulness
from fgvce_jax.models import ModelSpec, build


@partial(jax.jit, static_argnames="passes")
def forward(clf, images, passes):
    """`passes` forward passes of a batch, one after another, no two alike."""
    return jax.lax.map(lambda shift: clf(images + shift), 1e-3 * jax.numpy.arange(passes))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16, help="images in one forward pass")
    parser.add_argument("--maps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()

    clf = build(ModelSpec(options.arch), 200, options.image_size, jax.random.key(0))
    rng = np.random.default_rng(0)
    shape = (options.image_size, options.image_size, 3)
    images = rng.uniform(size=(options.maps, *shape)).astype(np.float32)
    maps = rng.uniform(size=(options.maps, 7, 7)).astype(np.float32)
    classes = np.zeros(options.maps, np.int32)
    batch = rng.uniform(size=(options.batch, *shape)).astype(np.float32)

    curves = faithfulness(clf, images, maps, classes, chunk=options.batch)
    passes = options.maps * 2 * (curves.insertion.shape[1] - 1)
    batches = -(-passes // options.batch)
    measured, plain = median_times(
        [
            lambda: faithfulness(clf, images, maps, classes, chunk=options.batch),
            lambda: forward(clf, batch, batches),
        ],
        repeats=options.repeats,
    )
    plain *= passes / (batches * options.batch)
    result = {
        "benchmark": "insertion",
        "machine": machine(),
        "settings": {
            name: getattr(options, name) for name in ("arch", "image_size", "batch", "maps")
        },
        "passes": passes,
        "seconds": measured,
        "forward_seconds": plain,
        "ratio": measured / plain,
    }
    print(
        f"insertion and deletion of {options.maps} map(s), {options.arch}: {measured:.2f} s, "
        f"{passes} forward passes in batches of {options.batch}: {plain:.2f} s, ratio "
        f"{result['ratio']:.3f} ({describe(result['machine'])})"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
