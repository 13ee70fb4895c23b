"""The maps of the search with matched evidence."""

import jax
import numpy as np
import reference
from tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.config import MATCHED
from fgvce_jax.methods import METHODS

search = jax.jit(fg.counterfactual, static_argnames="config")


def test_a_batch_is_searched_with_the_references_of_both_classes():
    """`explain`, the registry's maps and the search of one image say the same."""
    model = tiny()
    images, _, contrast = problems(model, count=40)
    predicted = np.asarray(model.clf(images).argmax(-1))
    bank = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=2, top_m=None))
    asked = np.flatnonzero((contrast != predicted) & (bank.references[contrast] > 0))[:5]
    images, predicted, targets = images[asked], predicted[asked], contrast[asked]
    out = fg.explain(model.clf, bank, images, targets, MATCHED)
    maps = [
        METHODS[f"fgvce_matched_{side}"](model.clf, images, predicted, targets, bank=bank)
        for side in ("invariant", "dominant")
    ]
    for i in range(len(images)):
        cells = model.clf.features(images[i : i + 1])[0]
        groups = bank.group[targets[i]], bank.group[predicted[i]]
        candidates, rivals = (bank.cells[g][bank.valid[g]] for g in groups)
        one = search(model.clf.head, cells, int(targets[i]), candidates, MATCHED, rivals=rivals)
        np.testing.assert_array_equal(out.edit_cell[i], one.edit_cell)
        np.testing.assert_array_equal(out.edit_candidate[i], one.edit_candidate)
        before = reference.matched_evidence(
            model.head, cells, predicted[i], targets[i], rivals, candidates
        )
        after = reference.matched_evidence(
            model.head, one.cells, targets[i], predicted[i], candidates, rivals
        )
        for got, weight, change in (
            (out.invariant[i], before, cells - one.cells),
            (out.dominant[i], after, one.cells - cells),
        ):
            share = np.maximum(change, 0).sum(-1)
            np.testing.assert_allclose(got, weight * share / share.sum(), atol=2e-4)
        np.testing.assert_allclose(maps[0][i], out.invariant[i], atol=1e-6)
        np.testing.assert_allclose(maps[1][i], out.dominant[i], atol=1e-6)
    assert int(out.num_edits.max()) > 0
