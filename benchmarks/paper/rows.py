"""The rows of the tables, an explainer each, and their maps, computed once for all scripts.

Every method of the registry is a row. `_VARIANTS` adds those that are a method asked otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from pictures import panel, save
from results import numbers
from study import Study

from fgvce_jax.errors import InputError
from fgvce_jax.files import whole_file
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cce import pgd
from fgvce_jax.methods.cve import edit_map
from fgvce_jax.models.classifier import feature_map_of


class Row(NamedTuple):
    """A system: its name in a table; "P" or "Q", the class that its maps explain; how to get them.

    `explain` is Study -> maps, or (maps, features that they are of).
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
        asked = predicted if of == "P" else target
        return method(study.clf, images, asked, target, bank=bank, **options)

    return study.batched(maps, study.images, study.predicted, study.target)


def _with_sigma(name: str, option: str, study: Study, of: str = "P") -> np.ndarray:
    return call(name, study, of, **{option: study.sigma})


def _fgvce(region: str, study: Study, search: str = "fgvce") -> Any:
    found = getattr(study.explanation(search), region)
    return found if region == "invariant" else (found, study.edited(search))


def _cve(name: str, study: Study) -> tuple[np.ndarray, np.ndarray]:
    found = study.exhaustive(name)
    return np.asarray(jax.vmap(partial(edit_map, n=study.n))(found)), found.cells


def _cce_dominant(study: Study) -> tuple[np.ndarray, np.ndarray]:
    attacked = study.batched(partial(pgd, study.clf), study.images, study.target).images
    cells = study.batched(partial(feature_map_of, study.clf), attacked).cells
    return call("cce", study, region="dominant"), cells


def _calm(study: Study) -> np.ndarray:
    try:
        return call("calm", study)
    except InputError as error:
        raise InputError(f"{error}, and name it with --calm") from error


def _constant(study: Study) -> np.ndarray:
    """The control whose compactness is the highest there is, n^2 / sum(g)."""
    return np.ones((len(study), study.n, study.n))


def _random(study: Study) -> np.ndarray:
    """The control: cells in an order drawn once for every sample."""
    rng = np.random.default_rng(0)
    order = np.tile(np.arange(1, study.n**2 + 1.0), (len(study), 1)) / study.n**2
    return rng.permuted(order, axis=1).reshape(len(study), study.n, study.n)


_contributions = partial(_with_sigma, "contributions", "sigma")

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
    "fgvce_matched_invariant": partial(_fgvce, "invariant", search="fgvce_matched"),
    "fgvce_matched_dominant": partial(_fgvce, "dominant", search="fgvce_matched"),
}


def _variant(of: str, added: str, explains: str, explain: Callable[[Study], Any]) -> Row:
    return Row(METHODS[of].label + added, explains, explain)


_VARIANTS = {
    "cce_dominant": _variant("cce", " dominant", "Q", _cce_dominant),
    "gradcam_q": _variant("gradcam", " of Q", "Q", partial(call, "gradcam", of="Q")),
    "contributions_q": _variant("contributions", " of Q", "Q", partial(_contributions, of="Q")),
    "random": Row("random cells, asked of P", "P", _random),
    "constant": Row("constant map, the ceiling of ξ", "P", _constant),
    "constant_q": Row("constant map, the ceiling of ξ", "Q", _constant),
    "random_q": Row("random cells, asked of Q", "Q", _random),
}
for _name in ("ce", "scout", "cce"):  # Table 3 and Fig. 5
    _with_sp = partial(_with_sigma, _name, "sp_sigma")
    _VARIANTS[f"{_name}_sp"] = _variant(_name, " + SP", "P", _with_sp)
for _name, _explains in (("invariant", "P"), ("dominant", "Q")):
    for _key, _added in (("without_sp", " w/o SP"), ("margin", ", margin evidence")):
        _other = partial(_fgvce, _name, search=f"fgvce_{_key}")
        _VARIANTS[f"fgvce_{_name}_{_key}"] = _variant(f"fgvce_{_name}", _added, _explains, _other)
# They read what a vision transformer alone has; the paper's networks are convolutional.
_OF_ATTENTION = ("legrad", "rollout")
ROWS: Mapping[str, Row] = {
    name: Row(method.label, method.explains, _SPECIAL.get(name, partial(call, name)))
    for name, method in METHODS.items()
    if name not in _OF_ATTENTION
} | _VARIANTS
TABLE1 = sorted((n for n in ROWS if not n.endswith("_sp")), key=lambda n: ROWS[n].explains)
"""The rows of Table 1: those that explain P, then those that explain Q."""


class Explained(NamedTuple):
    """Maps of all samples, [N, m, m], 0 where they hold NaN, and which are `whole`, without.

    Each explains a class and features [N, n, n, C] of `study`. CALM has `another` one than the
    other rows, of a classifier of its own.
    """

    study: Study
    maps: np.ndarray
    whole: np.ndarray
    classes: np.ndarray
    cells: np.ndarray
    another: bool

    def scored(self, scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The scores of the samples for the JSON, and `left_out`."""
        whole = {name: np.where(self.whole, values, np.nan) for name, values in scores.items()}
        return {"scores": {k: numbers(values) for k, values in whole.items()}, **self.left_out()}

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
        return np.array(self.study.ids)[chosen].tolist()


def maps_of(study: Study, name: str, row: Row | None = None) -> Explained:
    """A row's maps, computed once for all scripts; InputError where it needs what there is not."""
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
    classes = study.predicted if row.explains == "P" else study.target
    maps = np.where(whole[:, None, None], maps, 0)
    return Explained(study, maps, whole, classes, cells, another=study is not asked)


def draw(
    study: Study,
    name: str,
    rows: Sequence[str],
    samples: slice | np.ndarray,
    outlines: Sequence[np.ndarray] | None = None,
) -> None:
    """The maps of rows on some samples; the controls, which show nothing, left out."""
    if not study.drawable:
        return
    columns = {
        ROWS[row].label: (ROWS[row].explains, maps_of(study, row).maps[samples])
        for row in rows
        if not row.startswith(("random", "constant"))
    }
    if columns:
        captions = np.array(study.captions)[samples]
        figure = panel(study.images[samples], captions, columns, outlines)
        save(figure, study.options.out / f"{name}.png")
