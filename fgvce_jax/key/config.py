"""The options of `fgvce benchmark`."""

from __future__ import annotations

from dataclasses import dataclass, field

from fgvce_jax.config import ModelConfig, at_least, at_most

VERSION = "key-1"
"""Names what is fixed: the pictures, the settings, the measures. Two figures compare under one."""


SHIPPED = "checkpoints/birds"


@dataclass(frozen=True)
class KeyConfig:
    """A benchmark of explanations: the birds, whose true reasons are known.

    Attributes:
        model: Which classifier; it has to know the 50 birds, in any order.
        methods: Rows to measure: names of `fgvce_jax.methods.METHODS` and `fgvce_jax.key.EDITS`, or
            functions of your own as package.module:function; in a list, or with commas between
            them. All by default.
        images: Images in each setting.
        seed: Of the pictures, 1 or more; figures of `key-1` are those of seed 1.
        control_images: Images for the classifiers with random weights; 0 leaves them out.
        batch_size: Images explained together.
        rise_masks: Masks of RISE, usually 8000.
        ep_iterations: Iterations of EP, usually 800.
    """

    model: ModelConfig = field(default_factory=lambda: ModelConfig(SHIPPED))
    methods: tuple[str, ...] | str = ()
    images: int = 500
    seed: int = 1
    control_images: int = 100
    batch_size: int = 50
    rise_masks: int = 500
    ep_iterations: int = 150

    def __post_init__(self):
        at_least(self, 1, "images", "seed", "batch_size", "rise_masks", "ep_iterations")
        at_least(self, 0, "control_images")
        at_most(self, 2**31 - 1, "seed")
        at_most(self, 10_000, "images", "control_images", "batch_size")
        if isinstance(self.methods, str):
            names = tuple(name.strip() for name in self.methods.split(",") if name.strip())
            object.__setattr__(self, "methods", names)
