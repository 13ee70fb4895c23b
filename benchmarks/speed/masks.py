"""What insertion and deletion, and RISE, cost over as many plain forward passes.

python benchmarks/speed/masks.py --json out.json
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import finish, median_times, parser, show

from fgvce_jax.methods.rise import rise
from fgvce_jax.metrics import faithfulness
from fgvce_jax.models import ModelSpec, build


@partial(jax.jit, static_argnames="passes")
def forward(clf: Any, images: jax.Array, passes: int) -> jax.Array:
    """`passes` forward passes of a batch, one after another, no two alike."""
    return jax.lax.map(lambda shift: clf(images + shift), 1e-3 * jnp.arange(passes))


def main() -> None:
    """Measure, print, write."""
    arguments = parser(__doc__)
    arguments.add_argument("--arch", default="resnet50")
    arguments.add_argument("--image_size", type=int, default=224)
    arguments.add_argument("--batch", type=int, default=16, help="images in one forward pass")
    arguments.add_argument("--masks", type=int, default=64, help="of RISE, a multiple of --batch")
    options = arguments.parse_args()
    clf = build(ModelSpec(options.arch), 200, options.image_size, jax.random.key(0))
    rng = np.random.default_rng(0)
    size, batch = options.image_size, options.batch
    images = rng.uniform(size=(batch, size, size, 3)).astype(np.float32)
    maps, label = rng.uniform(size=(1, 7, 7)).astype(np.float32), np.zeros(1, np.int32)
    curve = partial(faithfulness, clf, images[:1], maps, label, chunk=batch)
    mask = partial(rise, clf, images[:1], label, num_masks=options.masks, chunk=batch)
    rows: list[dict[str, Any]] = []
    for name, run, passes in (
        ("insertion and deletion", curve, 2 * (curve().insertion.shape[1] - 1)),
        ("RISE", mask, options.masks),
    ):
        batches = -(-passes // batch)
        seconds, plain = median_times(
            [run, partial(forward, clf, images, batches)], options.repeats
        )
        plain *= passes / (batches * batch)
        rows.append(
            {
                "measure": name,
                "passes": passes,
                "batch": batch,
                "seconds": seconds,
                "forward_seconds": plain,
                "ratio": seconds / plain,
            }
        )
        show(rows[-1])
    finish(options, {"name": "masks", "arch": options.arch, "image_size": size, "rows": rows})


if __name__ == "__main__":
    main()
