"""Classifiers cut into features and head, their weights and their checkpoints."""

from fgvce_jax.models.checkpoint import load_classifier, open_classifier, save_classifier
from fgvce_jax.models.classifier import Backbone, Classifier, FeatureMap
from fgvce_jax.models.named import named, recut
from fgvce_jax.models.port import port
from fgvce_jax.models.spec import ModelSpec, build, with_activation
from fgvce_jax.models.wrap import wrap

__all__ = [
    "Backbone",
    "Classifier",
    "FeatureMap",
    "ModelSpec",
    "build",
    "load_classifier",
    "named",
    "open_classifier",
    "port",
    "recut",
    "save_classifier",
    "with_activation",
    "wrap",
]
