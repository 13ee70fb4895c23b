"""The registry of explainers: every system that the paper compares, by name, under one signature.

    maps = METHODS["scout"](clf, images, classes, contrast_classes, bank=bank, **options)

Images are float32 [B, H, W, 3] in [0, 1]; `classes` and `contrast_classes` int32 [B], the class P
and the class Q that it is held against. The maps are float32, [B, n, n] for a method of cells and
[B, H, W] for one of pixels (those of fgcam lie between, [B, m, m] for a stage of m x m). A method
takes from this what its record's `needs` names, so that all can be called alike. Every method is
jitted, with the classifier as an argument; options that change shapes are static.

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
        module: Where it is defined; imported when it is first used.
        label: Its name in a table.
        paper: Where it was published.
        explains: The class that its maps explain: "P", the class asked about, or "Q", the contrast
            class.
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
        """The function itself, whose docstring explains the options."""
        return getattr(importlib.import_module(self.module), self.function or self.name)

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

        Args:
            clf: The classifier.
            images: float32 in [0, 1].
            classes: P, the class to explain in each image, usually the predicted one.
            contrast_classes: Q, the class that P is held against.
            bank: Candidate cells, from `fgvce_jax.build_bank` with the same classifier.
            options: The method's own.

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
        if self.needs & {"bank", "all_cells"}:
            given["bank"] = self._checked(bank)
        parameters = inspect.signature(function).parameters
        unknown = sorted(set(options) - set(parameters))
        if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            own = [n for n in parameters if n not in ("clf", "images", "classes", *given)]
            expected = ", ".join(own) or "none"
            raise InputError(f"{self.name}: unknown option {unknown[0]!r}; expected {expected}")
        return function(clf, images, classes, **given, **options)

    def _checked(self, bank: Bank | None) -> Bank:
        all_cells = "all_cells" in self.needs
        if bank is None or (all_cells and bank.config.top_m is not None):
            kind = "bank of all cells, built with top_m None" if all_cells else "bank of candidates"
            raise InputError(f"{self.name}: expected a {kind}, given as bank")
        return bank


class UnknownMethod(InputError, KeyError):
    """No method has that name; the message lists those there are."""

    __str__ = InputError.__str__  # KeyError shows its message in quotes


class _Registry(dict[str, Method]):
    """A dict whose KeyError lists the names there are."""

    def __missing__(self, name: str) -> Method:
        near = difflib.get_close_matches(name, self, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UnknownMethod(f"method {name!r}: expected one of {', '.join(self)}{hint}")


def _method(
    name: str, file: str, label: str, paper: str, *needs: Need, explains: Any = "P", function=None
) -> tuple[str, Method]:
    module = f"{__name__}.{file}"
    return name, Method(name, module, label, paper, explains, frozenset(needs), function)


METHODS: dict[str, Method] = _Registry(
    [
        # one class
        _method("gbp", "gbp", "GBP", "Springenberg et al., ICLR workshop 2015"),
        _method("ig", "ig", "IG", "Sundararajan et al., ICML 2017"),
        _method("rise", "rise", "RISE", "Petsiuk et al., BMVC 2018"),
        _method("ep", "ep", "EP", "Fong et al., ICCV 2019"),
        _method("gradcam", "cams", "GradCAM", "Selvaraju et al., ICCV 2017"),
        _method("gradcampp", "cams", "GradCAM++", "Chattopadhyay et al., WACV 2018"),
        _method("scorecam", "scorecam", "ScoreCAM", "Wang et al., CVPR workshop 2020"),
        _method("layercam", "cams", "LayerCAM", "Jiang et al., TIP 2021"),
        _method("fgcam", "fgcam", "FG-CAM", "Qiu et al., 2023"),
        _method("calm", "calm", "CALM", "Kim et al., ICCV 2021"),
        _method(
            "contributions",
            "fgvce",
            "Contributions",
            "Zhang et al., Eq. 1-4",
            function="contribution_maps",
        ),
        # a class against another
        _method("ce", "ce", "CE", "Prabhushankar et al., ICIP 2020", "contrast"),
        _method("scout", "scout", "SCOUT", "Wang & Vasconcelos, CVPR 2020", "contrast"),
        _method("cce", "cce", "CCE", "Wang et al., ICCV 2023", "contrast"),
        _method(
            "cve", "cve", "CVE", "Goyal et al., ICML 2019", "contrast", "all_cells", explains="Q"
        ),
        _method(
            "cve_semantic",
            "cve",
            "CVE-semantic",
            "Vandenhende et al., ECCV 2022",
            "contrast",
            "all_cells",
            explains="Q",
        ),
        _method(
            "fgvce_invariant",
            "fgvce",
            "FG-VCE invariant",
            "Zhang et al., Eq. 10",
            "contrast",
            "bank",
        ),
        _method(
            "fgvce_dominant",
            "fgvce",
            "FG-VCE dominant",
            "Zhang et al., Eq. 11",
            "contrast",
            "bank",
            explains="Q",
        ),
    ]
)
"""By name. An unknown one raises `UnknownMethod`, an `InputError` and a KeyError."""
