"""Forward passes beside torch's, and attribution maps beside torchcam's and captum's.

    python benchmarks/speed/peers.py --json out.json

Needs torch, transformers, torchcam and captum. The networks are of the same architecture and size,
with random weights; torch's time is that of the faster of its two memory formats. Ours and theirs
are measured in turn in one process.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import torch
import transformers
from captum.attr import GuidedBackprop, IntegratedGradients
from timing import in_own_process, median_times, script, show
from torch import nn
from torchcam.methods import GradCAM

from fgvce_jax.methods import METHODS
from fgvce_jax.models import ModelSpec, build

CLASSES, SIZE, STEPS = 1000, 224, 50
FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


class Logits(nn.Module):
    """A network of transformers that returns its logits."""

    def __init__(self, kind: str, **settings: Any):
        super().__init__()
        config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **settings)
        self.network = getattr(transformers, f"{kind}ForImageClassification")(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x).logits


def vgg16() -> nn.Module:
    """VGG-16 as published."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    widths = (512 * 7 * 7, 4096, 4096, CLASSES)
    layers.append(nn.Flatten())
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "resnet50": ("ResNet-50", partial(Logits, "ResNet")),
    "vgg16": ("VGG-16", vgg16),
    # Of like size: transformers has no EfficientNet-Lite0.
    "efficientnet_lite0": ("MobileNetV2", partial(Logits, "MobileNetV2")),
    "convnext_tiny": ("ConvNeXt-T", partial(Logits, "ConvNext")),
    "vit_b_16": ("ViT-B/16", partial(Logits, "ViT")),
    "swin_t": ("Swin-T", partial(Logits, "Swin")),
}
"""Ours, with the peer's name and the peer."""


def _images(batch: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(batch, SIZE, SIZE, 3)).astype(np.float32)


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2).contiguous()


def forward_row(arch: str, batch: int, repeats: int) -> dict[str, Any]:
    """A forward pass beside torch's."""
    clf, images = build(ModelSpec(arch), CLASSES, SIZE, jax.random.key(0)), _images(batch)
    name, make = NETWORKS[arch]
    network = make().eval()

    def theirs(memory_format: torch.memory_format) -> torch.Tensor:
        with torch.inference_mode():
            return forms[memory_format](inputs[memory_format])

    forms, inputs = {}, {}
    for memory_format in FORMATS.values():
        own = make().eval()
        own.load_state_dict(network.state_dict())
        forms[memory_format] = own.to(memory_format=memory_format)
        inputs[memory_format] = _tensor(images).to(memory_format=memory_format)
    ours = partial(jax.jit(lambda clf, images: clf(images)), clf, jax.numpy.asarray(images))
    seconds = median_times([ours, *(partial(theirs, f) for f in FORMATS.values())], repeats)
    best = int(np.argmin(seconds[1:]))
    return _row(
        f"forward pass, {arch}",
        f"torch, {name}, {list(FORMATS)[best]}",
        batch,
        [seconds[0], seconds[1:][best]],
    )


def maps_row(method: str, batch: int, repeats: int) -> dict[str, Any]:
    """A method's maps on ResNet-50 beside the peer's."""
    clf, images = build(ModelSpec("resnet50"), CLASSES, SIZE, jax.random.key(0)), _images(batch)
    classes = np.arange(batch, dtype=np.int32)
    network, target = Logits("ResNet").eval(), torch.tensor(classes).long()
    inputs = _tensor(images)

    def torchcam() -> Any:
        with GradCAM(network, network.network.resnet.encoder.stages[-1].layers[-1]) as extractor:
            return extractor(target.tolist(), network(inputs.requires_grad_()))

    def captum() -> Any:
        if method == "gbp":
            return GuidedBackprop(network).attribute(inputs.requires_grad_(), target=target)
        return IntegratedGradients(network).attribute(
            inputs, target=target, n_steps=STEPS, internal_batch_size=batch
        )

    theirs = torchcam if method == "gradcam" else captum
    options = {"steps": STEPS} if method == "ig" else {}
    ours = partial(METHODS[method], clf, images, classes, **options)
    peer = f"{theirs.__name__}, ResNet-50"
    return _row(
        f"{METHODS[method].label}, resnet50", peer, batch, median_times([ours, theirs], repeats)
    )


def _row(name: str, peer: str, batch: int, seconds: list[float]) -> dict[str, Any]:
    ours, theirs = seconds
    return {
        "row": name,
        "peer": peer,
        "batch": batch,
        "ms": 1000 * ours / batch,
        "peer_ms": 1000 * theirs / batch,
        "ratio": ours / theirs,
    }


def measure(
    arch: str = ",".join(NETWORKS),
    methods: str = "gradcam,gbp,ig",
    batch: int = 16,
    maps_batch: int = 8,
    repeats: int = 5,
) -> dict[str, Any]:
    """Forward passes and attribution maps beside those of other libraries."""
    runs = [(forward_row, name, batch, repeats) for name in arch.split(",") if name]
    runs += [
        (maps_row, name, maps_batch, 2 if name == "ig" else repeats)
        for name in methods.split(",")
        if name
    ]
    versions = {library.__name__: library.__version__ for library in (torch, transformers)}
    return {"versions": versions, "rows": [show(in_own_process(*run)) for run in runs]}


if __name__ == "__main__":
    script(
        measure,
        arch="forward passes of these networks",
        methods="of the registry: gradcam, gbp, ig",
        batch="images in one forward pass",
        maps_batch="images that maps are made of at a time",
    )
