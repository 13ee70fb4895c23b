"""The options of a run, as frozen dataclasses; their defaults stand here and nowhere else."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

from fgvce_jax.errors import InputError

_PILLOWS_MOST = 178_956_970  # pixels, twice PIL.Image.MAX_IMAGE_PIXELS
MOST = 1_000_000  # of whatever nobody has as many of; beyond it a number is a slip
_WIDEST = 1000  # cells, of a mask: its square stays a float32
_HEAVIEST = 1_000_000  # a weight; float32 has room for its product with any log-probability
LARGEST_SIDE = 8192  # pixels, of what a classifier takes


@dataclass(frozen=True)
class DataConfig:
    """Which images.

    Attributes:
        name: The dataset: birds, digits, folder, cub or dogs.
        path: Where the dataset lies: the folder of a `folder` dataset, or the prepared CUB or
            Dogs. Not needed for birds and digits.
        num_workers: Processes that decode images; 0 leaves it to threads, which is enough for a
            few processors.
        class_map: A YAML or JSON file that gives classes of the dataset the classifier's name or
            number for them, as in `barn owl: owl`, where the two have different names. Classes
            that are not in it keep their name.
        max_pixels: Most pixels of an image that is decoded, of those read from disk; a larger one
            is skipped. Decoding takes about 12 bytes a pixel.
        test_share: Of a folder without train and test: the share of its images, from 0 to 1, that
            a hash of their names puts into "test"; the others are "train".
    """

    name: str = "birds"
    path: str | None = None
    num_workers: int = 0
    class_map: str | None = None
    max_pixels: int = 64_000_000
    test_share: float = 0.2

    def __post_init__(self):
        at_least(self, 0, "num_workers")
        at_least(self, 1, "max_pixels")
        at_least(self, 0, "test_share")
        at_most(self, 1, "test_share")
        at_most(self, 1000, "num_workers")
        at_most(self, _PILLOWS_MOST, "max_pixels")
        for name in ("path", "class_map"):
            _set(self, name, _absolute(getattr(self, name)))


@dataclass(frozen=True)
class ModelConfig:
    """Which classifier: a checkpoint folder, or an architecture with weights (or none, to train).

    Attributes:
        checkpoint: A folder written by `fgvce train` or `fgvce port`; it needs nothing else.
        arch: One of `fgvce_jax.models.spec.ARCHITECTURES`, as resnet50; a wrong name lists them.
        weights: A .safetensors, .pth, .pt or .ckpt file for `arch`.
        factory: Your own function, as package.module:function, that returns a classifier of any
            JAX model (`fgvce_jax.wrap`), in the place of the others.
        cut: Where features end and the head begins; by default after the last stage (ResNet), the
            last max-pool (VGG) or the final norm (Swin, DINOv2), or before the last block (ViT).
            "layer4.0" cuts a ResNet after the first block of its last stage, "conv" a VGG before
            its last max-pool, "blocks.9" a ViT after its tenth block; a wrong name lists them.
        widths: Channels of each stage of a small_resnet, or of a small_vit, whose last stage is a
            transformer.
        blocks: Blocks of each of these stages.
        stem_stride: Stride before the first of these stages: 1, 2 or 4.
        image_size: Height and width of the images, in pixels; by default the architecture's own.
        resize_to: Pixels to which an image's short side is resized before its centre is cut out;
            by default the checkpoint's, or none: the whole image is resized to a square.
        class_names: A text file with the name of each class on a line, in the classifier's order,
            or "imagenet" for ImageNet's 1000; by default the checkpoint's. Training takes the names
            of the dataset.
    """

    checkpoint: str | None = None
    arch: str | None = None
    weights: str | None = None
    factory: str | None = None
    cut: str | None = None
    widths: tuple[int, ...] = (48, 96, 192)
    blocks: tuple[int, ...] = (1, 1, 1)
    stem_stride: int = 4
    image_size: int | None = None
    resize_to: int | None = None
    class_names: str | None = None

    def __post_init__(self):
        at_least(self, 1, "image_size", "resize_to")
        at_most(self, LARGEST_SIDE, "image_size", "resize_to")
        if self.checkpoint and self.weights:
            raise InputError(
                f"model: expected a checkpoint or weights, got both {self.checkpoint} and "
                f"{self.weights} (--model.checkpoint null takes a preset's away)"
            )
        if self.factory and (self.checkpoint or self.weights or self.arch or self.cut):
            raise InputError(
                f"model: expected a factory or a classifier of ours, got both, {self.factory} and "
                f"{self.checkpoint or self.weights or self.arch or self.cut} "
                "(--model.checkpoint null takes a preset's away)"
            )
        for name in ("checkpoint", "weights"):
            path = _absolute(getattr(self, name) or None)
            if path and os.path.exists(path):  # else: one that is shipped
                _set(self, name, path)
        if self.class_names != "imagenet":
            _set(self, "class_names", _absolute(self.class_names))


@dataclass(frozen=True)
class BankConfig:
    """The candidate cells that may replace a misclassified image's own.

    Attributes:
        per_class: Correctly classified reference images of each class (|U|).
        top_m: Cells kept of each, those that contribute most; None keeps all.
        reference: "class" offers the cells of the target class, "all" those of every class.
        sigma: Width of the Gaussian masks that the cells are chosen with, in cells; 0 masks single
            cells. None is the search's own, and the two have to agree.
    """

    per_class: int = 20
    top_m: int | None = 10
    reference: Literal["class", "all"] = "class"
    sigma: float | None = None

    def __post_init__(self):
        at_least(self, 1, "per_class", "top_m")
        at_least(self, 0, "sigma")
        at_most(self, _WIDEST, "sigma")
        one_of(self, "reference")


@dataclass(frozen=True)
class SearchConfig:
    """The counterfactual search.

    Attributes:
        sigma: Width of the Gaussian contribution masks, in cells; 0 masks single cells ("without
            SP" in the paper's tables).
        max_iterations: Most edits of one image.
        lambda_sim: Weight of the cosine similarity of a cell and its replacement.
        lambda_cls: Weight of the target class's log-probability.
        lambda_distance: Weight against the distance of a cell and its replacement, in lengths of
            the image's mean cell.
        evidence: The query cell is the one that contributes most to the class predicted now
            ("predicted", the paper's reading), or to that class's lead over the target ("margin"),
            or that tells the two classes apart by what their references show in such a place
            ("matched", which wants all cells of the references: no `bank.top_m`). The contrastive
            maps are weighted by the same.
        shortlist: Candidates tried in an edit, those most similar to the query cell; None tries
            all. It divides the cost of an edit for heads that are searched by whole passes.
        chunk: Images searched together on a device; the others wait their turn. A chunk takes as
            long as its longest search, so 1 wastes no work and a large one keeps a GPU busy. By
            default 1 on a CPU and the whole batch elsewhere.
    """

    sigma: float = 0.8
    max_iterations: int = 100
    lambda_sim: float = 1.0
    lambda_cls: float = 1.0
    lambda_distance: float = 0.0
    evidence: Literal["predicted", "margin", "matched"] = "predicted"
    shortlist: int | None = None
    chunk: int | None = None

    def __post_init__(self):
        at_least(self, 0, "sigma")
        at_least(self, 1, "max_iterations", "shortlist", "chunk")
        weights = "lambda_sim", "lambda_cls", "lambda_distance"
        for name in ("sigma", *weights):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name}: expected a finite number, got {getattr(self, name)}")
        at_least(self, -_HEAVIEST, *weights)
        at_most(self, _HEAVIEST, *weights)
        at_most(self, _WIDEST, "sigma")
        one_of(self, "evidence")


def check_matched(search: SearchConfig, bank: BankConfig) -> None:
    """Raise InputError where matched evidence has not all cells of the references of two classes.

    Among a reference's best cells alone there is nothing like most places of an image.
    """
    if search.evidence == "matched" and bank.top_m is not None:
        raise InputError(f"bank.top_m: expected null with matched evidence, got {bank.top_m}")
    if search.evidence == "matched" and bank.reference != "class":
        raise InputError(
            f"bank.reference: expected class with matched evidence, got {bank.reference}"
        )


@dataclass(frozen=True)
class RayConfig:
    """Many machines: the workers of a run on a Ray cluster, beside each other.

    Attributes:
        address: The cluster: "auto" for the one that this machine belongs to, HOST:PORT for
            another, "local" to start one on this machine. `--ray ADDRESS` is short for it.
        workers: How many workers; by default as many as the cluster has room for at any time.
        gpus_per_worker: GPUs that each worker has to itself and computes on together; by default 1
            where the cluster has any.
        cpus_per_worker: Processors that each worker claims; with fewer per machine than it has,
            several workers share a machine.
    """

    address: str | None = None
    workers: int | None = None
    gpus_per_worker: int | None = None
    cpus_per_worker: int = 1

    def __post_init__(self):
        at_least(self, 1, "workers", "cpus_per_worker")
        at_least(self, 0, "gpus_per_worker")
        if self.address is None and (self.workers, self.gpus_per_worker) != (None, None):
            raise InputError("ray: expected a cluster's address beside the workers, as --ray auto")
        if self.address == "" or (self.address or "").startswith("ray://"):
            raise InputError(
                f"ray {self.address}: expected auto, local or HOST:PORT, on a machine of the "
                "cluster"
            )


@dataclass(frozen=True)
class ExplainConfig:
    """A run: every misclassified image of a split, explained.

    Attributes:
        data: Which images.
        model: Which classifier.
        bank: The candidate cells.
        search: The counterfactual search.
        split: The split whose mistakes are explained.
        reference_split: The split that reference images come from.
        limit: Look at the first `limit` images of the split only.
        batch_size: Images in one forward pass, and explanations in one search.
        part_size: Images of the split in one part of the results; a killed run redoes at most
            one.
        dtype: Number format of the backbone; contributions and search are always float32.
        pairs: "misclassified" asks of every mistake why it is P and not the correct class Q;
            "confusion" asks of every correctly classified image why it is P and not Q, the class
            that the model confuses most with P over the split.
        methods: Other methods whose maps stand beside each explanation, by their names in
            `fgvce_jax.methods.METHODS`: in a list, or with commas between them.
        bank_file: Where the bank is kept, as .npz; by default in the run's folder. Runs whose
            classifier, references and bank options are the same may share one.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    split: str = "test"
    reference_split: str = "train"
    limit: int | None = None
    batch_size: int = 32
    part_size: int = 512
    dtype: Literal["float32", "bfloat16"] = "float32"
    pairs: Literal["misclassified", "confusion"] = "misclassified"
    methods: tuple[str, ...] | str = ()
    bank_file: str | None = None

    def __post_init__(self):
        at_least(self, 1, "limit", "batch_size", "part_size")
        at_most(self, MOST, "batch_size")
        if self.bank.sigma is None:
            _set(self, "bank", replace(self.bank, sigma=self.search.sigma))
        elif self.bank.sigma != self.search.sigma:
            raise InputError(
                f"bank.sigma: expected the search's, {self.search.sigma}, got {self.bank.sigma}"
            )
        check_matched(self.search, self.bank)
        if isinstance(self.methods, str):
            names = tuple(name.strip() for name in self.methods.split(",") if name.strip())
            _set(self, "methods", names)


_set = object.__setattr__  # of a frozen dataclass, before anyone has seen it


def _absolute(path: str | None) -> str | None:
    """One name for a file, from wherever it is called."""
    return None if path is None else os.path.abspath(os.path.expanduser(path))


def at_least(config: Any, least: int, *names: str) -> None:
    """Raise InputError unless each of these fields is None, or `least` or more."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise InputError(f"{name}: expected {least} or more, got {value}")


def at_most(config: Any, most: float, *names: str) -> None:
    """Raise InputError unless each of these fields is None, or `most` or less."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value <= most:
            raise InputError(f"{name}: expected at most {most}, got {value}")


def one_of(config: Any, *names: str) -> None:
    """Raise InputError unless each of these fields holds one of its type's literals."""
    for name in names:
        value, choices = getattr(config, name), get_args(get_type_hints(type(config))[name])
        if value not in choices:
            expected = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise InputError(f"{name}: expected {expected}, got {value!r}")


def from_dict(kind: type, values: dict[str, Any]) -> Any:
    """A config dataclass from what `dataclasses.asdict` (and JSON) made of it."""
    hints = get_type_hints(kind)

    def value(name: str, given: Any) -> Any:
        if is_dataclass(hints[name]):
            return from_dict(hints[name], given)
        return tuple(given) if isinstance(given, list) else given

    return kind(**{name: value(name, given) for name, given in values.items()})


MATCHED = SearchConfig(lambda_sim=0.0, lambda_distance=0.1, evidence="matched")
"""This project's own search, "FG-VCE (matched)": the best on the answer key (docs/key.md)."""
