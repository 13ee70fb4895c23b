"""The transformers' families with a few narrow blocks, in the place of the sizes people use."""

from dataclasses import replace

from fgvce_jax.models.spec import NETWORKS
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
