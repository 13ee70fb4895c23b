"""The registry of explainers: every system that the paper compares, by name, under one signature.

    maps = METHODS["scout"](clf, images, classes, contrast_classes, bank=bank, **options)

Images are float32 [B, H, W, 3] in [0, 1]; `classes` and `contrast_classes` int32 [B], the class P
to explain in each image, usually the predicted one, and the class Q that it is held against; `bank`
has candidate cells, from `fgvce_jax.build_bank` with the same classifier. The maps are float32,
[B, n, n] for a method of cells and [B, H, W] for one of pixels (those of fgcam lie between,
[B, m, m] for a stage of m x m). A method takes from this what its record's `needs` names, so that
all can be called alike; its function's docstring explains its options. Every method is jitted, with
the classifier as an argument; options that change shapes are static.

To add one, write its file and add its record to `METHODS`.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Array, Float, Int

from fgvce_jax.bank import Bank
from fgvce_jax.errors import InputError
from fgvce_jax.models.classifier import Classifier

Need = Literal["contrast", "bank", "all_cells"]


@dataclass(frozen=True)
class Method:
    """An explainer.

    Attributes:
        name: Its key in the registry.
        module: Where it is defined in this package; imported when it is first used.
        label: Its name in a table.
        paper: Where it was published.
        explains: The class that its maps explain, P or Q.
        needs: Beyond the classifier, images and classes: "contrast" classes, a "bank" of candidate
            cells for them, or a bank of "all_cells" of the references (built with `top_m=None`).
        function: Its name in the module, where that differs from `name`.
    """

    name: str
    module: str
    label: str
    paper: str
    explains: Literal["P", "Q"] = "P"
    needs: frozenset[Need] = frozenset()
    function: str | None = None

    def load(self) -> Callable[..., Any]:
        """The function itself."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        return getattr(module, self.function or self.name)

    def __call__(
        self,
        clf: Classifier,
        images: Float[Any, "B H W 3"],
        classes: Int[Any, "B"],
        contrast_classes: Int[Any, "B"] | None = None,
        *,
        bank: Bank | None = None,
        **options: Any,
    ) -> Float[Array, "B h w"]:
        """Attribution maps of a batch.

        Raises:
            InputError: Something that the method needs is not given, an option that it does not
                have, or whatever the method refuses.
        """
        function = self.load()
        given: dict[str, Any] = {}
        if "contrast" in self.needs:
            if contrast_classes is None:
                raise InputError(f"{self.name}: expected contrast_classes, the class Q of each")
            given["contrast_classes"] = contrast_classes
        all_cells = "all_cells" in self.needs
        if all_cells or "bank" in self.needs:
            if bank is None or (all_cells and bank.config.top_m is not None):
                kind = "all cells, built with top_m None" if all_cells else "candidates"
                raise InputError(f"{self.name}: expected a bank of {kind}, given as bank")
            given["bank"] = bank
        parameters = inspect.signature(function).parameters
        unknown = sorted(set(options) - set(parameters))
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            own = [n for n in parameters if n not in ("clf", "images", "classes", *given)]
            expected = ", ".join(own) or "none"
            raise InputError(f"{self.name}: unknown option {unknown[0]!r}; expected {expected}")
        return function(clf, images, classes, **given, **options)


class UnknownMethod(InputError, KeyError):
    """No method has that name; the message lists those there are."""

    __str__ = InputError.__str__  # KeyError shows its message in quotes


class _Registry(dict[str, Method]):
    """A dict whose KeyError lists the names there are."""

    def __missing__(self, name: str) -> Method:
        near = difflib.get_close_matches(name, self, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UnknownMethod(f"method {name!r}: expected one of {', '.join(self)}{hint}")


_PAIR: frozenset[Need] = frozenset({"contrast"})
_BEST: frozenset[Need] = frozenset({"contrast", "bank"})
_EVERY: frozenset[Need] = frozenset({"contrast", "all_cells"})
_OURS = "this project"

_RECORDS = (
    # one class
    Method("gbp", "gbp", "GBP", "Springenberg et al., ICLR workshop 2015"),
    Method("ig", "ig", "IG", "Sundararajan et al., ICML 2017"),
    Method("rise", "rise", "RISE", "Petsiuk et al., BMVC 2018"),
    Method("ep", "ep", "EP", "Fong et al., ICCV 2019"),
    Method("gradcam", "cams", "GradCAM", "Selvaraju et al., ICCV 2017"),
    Method("gradcampp", "cams", "GradCAM++", "Chattopadhyay et al., WACV 2018"),
    Method("scorecam", "scorecam", "ScoreCAM", "Wang et al., CVPR workshop 2020"),
    Method("layercam", "cams", "LayerCAM", "Jiang et al., TIP 2021"),
    Method("finercam", "finercam", "Finer-CAM", "Zhang et al., CVPR 2025"),
    Method("fgcam", "fgcam", "FG-CAM", "Qiu et al., 2023"),
    Method("legrad", "legrad", "LeGrad", "Bousselham et al., ICCV 2025"),
    Method("rollout", "rollout", "Rollout", "Abnar & Zuidema, ACL 2020"),
    Method("calm", "calm", "CALM", "Kim et al., ICCV 2021"),
    Method(
        "contributions",
        "fgvce",
        "Contributions",
        "Zhang et al., Eq. 1-4",
        function="contribution_maps",
    ),
    # a class against another
    Method("ce", "ce", "CE", "Prabhushankar et al., ICIP 2020", "P", _PAIR),
    Method("scout", "scout", "SCOUT", "Wang & Vasconcelos, CVPR 2020", "P", _PAIR),
    Method("cce", "cce", "CCE", "Wang et al., ICCV 2023", "P", _PAIR),
    Method("cve", "cve", "CVE", "Goyal et al., ICML 2019", "Q", _EVERY),
    Method("cve_semantic", "cve", "CVE-semantic", "Vandenhende et al., ECCV 2022", "Q", _EVERY),
    Method("fgvce_invariant", "fgvce", "FG-VCE invariant", "Zhang et al., Eq. 10", "P", _BEST),
    Method("fgvce_dominant", "fgvce", "FG-VCE dominant", "Zhang et al., Eq. 11", "Q", _BEST),
    Method("fgvce_matched_invariant", "fgvce", "FG-VCE (matched) invariant", _OURS, "P", _EVERY),
    Method("fgvce_matched_dominant", "fgvce", "FG-VCE (matched) dominant", _OURS, "Q", _EVERY),
)

METHODS: dict[str, Method] = _Registry((method.name, method) for method in _RECORDS)
"""By name. An unknown one raises `UnknownMethod`, an `InputError` and a KeyError."""
