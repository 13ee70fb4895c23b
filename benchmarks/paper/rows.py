"""The rows of the tables, an explainer each, and their maps, computed once for all scripts.

Every method of the registry is a row. `_VARIANTS` adds those that are a method asked otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from pictures import panel
from study import Study

from fgvce_jax.errors import InputError
from fgvce_jax.files import whole_file
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cce import pgd
from fgvce_jax.methods.cve import edit_map
from fgvce_jax.models.classifier import cells_of


class Row(NamedTuple):
    """A system of the tables.

    Attributes:
        label: Its name in a table.
        explains: "P" or "Q": the class that its maps explain.
        explain: Study -> maps, or (maps, features that they are of).
    """

    label: str
    explains: str
    explain: Callable[[Study], Any]


def call(name: str, study: Study, of: str = "P", **options: Any) -> np.ndarray:
    """A registered method's maps of all samples, asked of P (against Q), or of Q."""
    method, bank = METHODS[name], None
    if method.needs & {"bank", "all_cells"}:
        bank = study.bank(None if "all_cells" in method.needs else study.top_m, study.sigma)

    def maps(images, predicted, target):
        contrast = target if "contrast" in method.needs else None
        asked = predicted if of == "P" else target
        return method(study.clf, images, asked, contrast, bank=bank, **options)

    return study.batched(maps, study.images, study.predicted, study.target)


def _contributions(study: Study, of: str = "P") -> np.ndarray:
    return call("contributions", study, of, sigma=study.sigma)


def _with_sp(name: str, study: Study) -> np.ndarray:
    return call(name, study, sp_sigma=study.sigma)


def _fgvce(region: str, study: Study, with_sp: bool = True) -> Any:
    sigma = study.sigma if with_sp else 0.0
    found = getattr(study.explanation(sigma), region)
    return found if region == "invariant" else (found, study.edited(sigma))


def _cve(name: str, study: Study) -> tuple[np.ndarray, np.ndarray]:
    found = study.exhaustive(name)
    return np.asarray(jax.vmap(partial(edit_map, n=study.n))(found)), found.cells


def _cce_dominant(study: Study) -> tuple[np.ndarray, np.ndarray]:
    attacked = study.batched(partial(pgd, study.clf), study.images, study.target).images
    return call("cce", study, region="dominant"), study.batched(
        partial(cells_of, study.clf), attacked
    )


def _calm(study: Study) -> np.ndarray:
    try:
        return call("calm", study)
    except InputError as error:
        raise InputError(f"{error}, and name it with --calm") from error


def _random(study: Study) -> np.ndarray:
    """The control: cells in an order drawn once for every sample."""
    rng = np.random.default_rng(0)
    order = np.tile(np.arange(1, study.n**2 + 1.0), (len(study), 1)) / study.n**2
    return rng.permuted(order, axis=1).reshape(len(study), study.n, study.n)


# Methods that are not simply called: their options, their edits or their own features are needed.
_SPECIAL: dict[str, Callable[[Study], Any]] = {
    "rise": lambda study: call("rise", study, num_masks=study.options.rise_masks),
    "ep": lambda study: call("ep", study, iterations=study.options.ep_iterations),
    "contributions": _contributions,
    "calm": _calm,
    "cve": partial(_cve, "cve"),
    "cve_semantic": partial(_cve, "cve_semantic"),
    "fgvce_invariant": partial(_fgvce, "invariant"),
    "fgvce_dominant": partial(_fgvce, "dominant"),
}


def _variant(of: str, added: str, explains: str, explain: Callable[[Study], Any]) -> Row:
    return Row(METHODS[of].label + added, explains, explain)


_VARIANTS = {
    "cce_dominant": _variant("cce", " dominant", "Q", _cce_dominant),
    "gradcam_q": _variant("gradcam", " of Q", "Q", partial(call, "gradcam", of="Q")),
    "contributions_q": _variant("contributions", " of Q", "Q", partial(_contributions, of="Q")),
    "random": Row("random cells, asked of P", "P", _random),
    "random_q": Row("random cells, asked of Q", "Q", _random),
    # Table 3 and Fig. 5
    **{f"{n}_sp": _variant(n, " + SP", "P", partial(_with_sp, n)) for n in ("ce", "scout", "cce")},
    **{
        f"fgvce_{region}_without_sp": _variant(
            f"fgvce_{region}", " w/o SP", explains, partial(_fgvce, region, with_sp=False)
        )
        for region, explains in (("invariant", "P"), ("dominant", "Q"))
    },
}
ROWS: Mapping[str, Row] = {
    name: Row(method.label, method.explains, _SPECIAL.get(name, partial(call, name)))
    for name, method in METHODS.items()
} | _VARIANTS
TABLE1 = sorted((n for n in ROWS if not n.endswith("_sp")), key=lambda n: ROWS[n].explains)
"""The rows of Table 1: those that explain P, then those that explain Q."""


# --- maps ---------------------------------------------------------------------------------------


class Explained(NamedTuple):
    """Maps of all samples.

    Attributes:
        study: The images and the classifier that they explain; CALM has a classifier of its own.
        maps: float32 [N, m, m], 0 where they hold NaN.
        whole: Which of them hold no NaN, bool [N].
        classes: The class that each explains, int32 [N].
        cells: The features that each explains, [N, n, n, C].
        another: Whether the classifier is not that of the other rows.
    """

    study: Study
    maps: np.ndarray
    whole: np.ndarray
    classes: np.ndarray
    cells: np.ndarray
    another: bool

    def left_out(self) -> dict[str, Any]:
        """The samples that no table counts, the number of empty maps, and another classifier."""
        empty = self.whole & (self.maps <= 0).all((1, 2))
        found = {"excluded": self.ids(~self.whole), "empty": int(empty.sum())}
        if self.another:
            found["checkpoint"] = self.study.provenance["checkpoint"]
            found["correct"] = int((self.study.predicted == self.study.target).sum())
        return found

    def ids(self, chosen: np.ndarray) -> list[str]:
        """The ids of some samples, bool [N]."""
        return [id for id, c in zip(self.study.ids, chosen, strict=True) if c]


def maps_of(study: Study, name: str, row: Row | None = None) -> Explained:
    """A row's maps, computed once for all scripts.

    Raises:
        InputError: The classifier or the data lacks what the method needs.
    """
    row, asked = row or ROWS[name], study
    study = study.calm if name == "calm" else study
    path = study.kept / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = row.explain(study)
        maps, cells = found if isinstance(found, tuple) else (found, study.cells)
        with whole_file(path) as file:
            np.savez(file, maps=np.asarray(maps, np.float32), cells=cells)
    with np.load(path) as kept:
        maps, cells = kept["maps"], kept["cells"]
    whole = np.isfinite(maps).all((1, 2))
    return Explained(
        study=study,
        maps=np.where(whole[:, None, None], maps, 0),
        whole=whole,
        classes=study.predicted if row.explains == "P" else study.target,
        cells=cells,
        another=study is not asked,
    )


def draw(study: Study, name: str, rows: Sequence[str], count: int) -> None:
    """The maps of rows on the first `count` samples; the controls, which show nothing, left out."""
    columns = {
        ROWS[row].label: (ROWS[row].explains, maps_of(study, row).maps[:count])
        for row in rows
        if "random" not in row
    }
    if columns:
        path = study.options.out / f"{name}.png"
        panel(path, study.images[:count], study.captions[:count], columns)
