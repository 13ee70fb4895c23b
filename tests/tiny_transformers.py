"""The transformers' families with a few narrow blocks, in the place of the sizes people use."""

import re
from dataclasses import replace

import jax
import numpy as np
from networks import filled

from fgvce_jax.models import ModelSpec, named
from fgvce_jax.models.named import with_named
from fgvce_jax.models.spec import NETWORKS, template
from fgvce_jax.models.swin import swin
from fgvce_jax.models.vit import Design, vit

TINY = Design(width=24, blocks=3, heads=3, patch=8)
DINO = replace(TINY, read=0, scaled=True)
DESIGNS = {
    "vit_s_16": TINY,
    "vit_s_32": replace(TINY, patch=16),
    "deit_s_16_distilled": replace(TINY, distilled=True, read=2),
    "deit_s_16_distilled_cls": replace(TINY, distilled=True),
    "dinov2_s_14": DINO,
    "dinov2_s_14_reg": replace(DINO, registers=4, antialias=True),
}
SWIN = {"width": 8, "blocks": (2, 2, 2), "heads": (2, 2, 4), "window": 4}


def tiny_transformers(monkeypatch):
    """Put them into the table, by the names of the real ones."""
    for arch, design in DESIGNS.items():
        monkeypatch.setitem(NETWORKS, arch, vit(design))
    monkeypatch.setitem(NETWORKS, "swin_t", swin(**SWIN))


def network(arch, size=None, classes=5, seed=0, class_names=()):
    """One of them with random weights, whose classes differ clearly."""
    size = size or (64 if arch == "swin_t" else 32)
    clf = filled(template(ModelSpec(arch), classes, size), np.random.default_rng(seed))
    clf = replace(clf, class_names=class_names) if class_names else clf
    weights = named(clf)
    sure = {name: 8 * leaf for name, leaf in weights.items() if re.match(r"head.*kernel", name)}
    return with_named(clf, weights | sure)


def balanced(clf, images):
    """The same network with a bias by which no class is ahead over these images."""
    logits = jax.jit(lambda clf, x: clf(x))(clf, images)
    weights = named(clf)
    return with_named(clf, weights | {"head.bias": weights["head.bias"] - logits.mean(0)})
