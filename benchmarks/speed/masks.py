"""The cost of insertion and deletion, and of RISE, over as many plain forward passes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import median_times, script, show

from fgvce_jax.methods.rise import rise
from fgvce_jax.metrics import faithfulness
from fgvce_jax.models import ModelSpec, build


@partial(jax.jit, static_argnames="passes")
def forward(clf: Any, images: jax.Array, passes: int) -> jax.Array:
    """`passes` forward passes of a batch, one after another, no two alike."""
    return jax.lax.map(lambda shift: clf(images + shift), 1e-3 * jnp.arange(passes))


def measure(
    arch: str = "resnet50",
    image_size: int = 224,
    batch: int = 16,
    masks: int = 64,
    repeats: int = 7,
) -> dict[str, Any]:
    """The cost of insertion and deletion, and of RISE, over as many plain forward passes."""
    clf = build(ModelSpec(arch), 200, image_size, jax.random.key(0))
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(batch, image_size, image_size, 3)).astype(np.float32)
    maps, label = rng.uniform(size=(1, 7, 7)).astype(np.float32), np.zeros(1, np.int32)
    curve = partial(faithfulness, clf, images[:1], maps, label, chunk=batch)
    mask = partial(rise, clf, images[:1], label, num_masks=masks, chunk=batch)
    steps = 2 * (curve().insertion.shape[1] - 1)
    rows = []
    for name, run, passes in (("insertion and deletion", curve, steps), ("RISE", mask, masks)):
        batches = -(-passes // batch)
        seconds, plain = median_times([run, partial(forward, clf, images, batches)], repeats)
        plain *= passes / (batches * batch)
        row = {"measure": name, "passes": passes, "batch": batch, "seconds": seconds}
        rows.append(show(row | {"forward_seconds": plain, "ratio": seconds / plain}))
    return {"arch": arch, "image_size": image_size, "rows": rows}


if __name__ == "__main__":
    script(measure, batch="images in one forward pass", masks="of RISE, a multiple of --batch")
