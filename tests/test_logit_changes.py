"""Any subset of the edits, by adding their changes and by editing the feature map itself."""

from itertools import chain, combinations

import jax
import numpy as np
import pytest
from methods.tiny import CHANNELS, N, problems, tiny

import fgvce_jax as fg
from fgvce_jax.heads import Direct
from fgvce_jax.logit_changes import logit_changes, why_not_linear


@pytest.fixture(scope="module")
def case():
    model = tiny(sharpness=3.0)
    images, predicted, _ = problems(model, count=40)
    bank = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=3, top_m=3))
    known = np.setdiff1d(np.arange(5), bank.missing())
    targets = np.int32([known[known != p][0] for p in predicted[:6]])
    return model, images[:6], targets, bank


def test_undoing_any_edits_is_leaving_them_out(case):
    model, images, targets, bank = case
    out = jax.device_get(fg.explain(model.clf, bank, images, targets))
    cells = model.clf.features(images)
    candidates = bank.for_targets(targets)
    edits = out.edit_cell, out.edit_candidate
    logits, changes = logit_changes(model.clf.head, candidates, cells, *edits)
    np.testing.assert_array_equal(changes[out.edit_cell < 0], 0)
    assert max(out.num_edits) >= 3
    for b, count in enumerate(out.num_edits.tolist()):
        offered = bank.cells[bank.group[targets[b]]]
        subsets = chain.from_iterable(combinations(range(count), k) for k in range(count + 1))
        for kept in list(subsets)[:64]:
            edited = model.features(images[b]).reshape(N * N, CHANNELS)
            for t in kept:
                edited[out.edit_cell[b, t]] = offered[out.edit_candidate[b, t]]
            wanted = model.head(edited.reshape(N, N, CHANNELS))
            np.testing.assert_allclose(logits[b] + changes[b, list(kept)].sum(0), wanted, atol=1e-4)


def test_edits_of_other_heads_interact(case):
    model, *_ = case
    assert why_not_linear(model.clf.head) is None
    assert "(Dense) is not linear" in why_not_linear(tiny(kind="dense").clf.head)
    assert "(Direct) is not linear" in why_not_linear(Direct(lambda cells: cells.sum((-3, -2))))
