"""A vision transformer of Equimo that reads its class token, as a classifier
(`pip install equimo`).

    fgvce explain --data.name digits --model.factory examples.models.equimo_vit:classifier
"""

import jax
from equimo.models.vit import VisionTransformer

import fgvce_jax as fg


def model() -> VisionTransformer:
    """A small one of random weights; `equimo.models` has the trained ones."""
    return VisionTransformer(
        img_size=32,
        in_channels=3,
        dim=48,
        patch_size=8,
        num_heads=[3],
        depths=[2],
        num_classes=10,
        reg_tokens=0,
        global_pool="token",
        key=jax.random.key(0),
    )


def classifier() -> fg.Classifier:
    """It is cut before its last block, where its 4 x 4 patches still matter."""
    return fg.wrap(model(), 32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


if __name__ == "__main__":
    print(classifier().head)
