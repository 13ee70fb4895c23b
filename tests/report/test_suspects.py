"""Label errors told from model errors, on data in which the errors were planted."""

import math

import numpy as np
import pytest
from methods.tiny import CLASSES, problems, tiny
from sklearn.metrics import average_precision_score

import fgvce_jax as fg
from fgvce_jax.report.suspects import evidence, suspicion


def row(p=0.6, q=0.2, similarities=(0.9, 0.7), nearest=(1, 1, 0, 2), predicted=1, target=0):
    return {
        "predicted": predicted,
        "target": target,
        "p_predicted_before": p,
        "p_target_before": q,
        "edits": [{"similarity": s} for s in similarities],
        "nearest": list(nearest),
    }


def test_the_evidence_by_hand():
    found = evidence(row())
    assert found == {
        "log_odds": pytest.approx(math.log(3)),
        "dissimilarity": pytest.approx(0.2),
        "neighbours": pytest.approx((2 - 1) / 4),
        "edits": pytest.approx(math.log(3)),
    }
    z = -4 + 1.75 * math.log(3) + 0.7 * 0.2 + 0.25 / 4 + 0.35 * math.log(3)
    assert suspicion(row()) == pytest.approx(1 / (1 + math.exp(-z)))
    assert suspicion(row(similarities=())) is None
    assert evidence(row(nearest=()))["neighbours"] == 0
    assert suspicion(row(q=0)) < 1


@pytest.mark.parametrize(
    "more", [{"q": 0.1}, {"similarities": (0.5, 0.3)}, {"nearest": (1, 1, 1, 1)}]
)
def test_each_kind_of_evidence_raises_the_score(more):
    assert suspicion(row(**more)) > suspicion(row())


def test_planted_label_errors_rank_above_the_mistakes_of_the_model():
    """Weights that are a little off make mistakes; labels that were moved make suspects."""
    model = tiny(sharpness=3.0)
    images, truth, other = problems(model, count=400)
    rng = np.random.default_rng(0)
    planted = rng.random(400) < 0.15
    labels = np.where(planted, other, truth)
    kernel, bias = model.clf.features.args[0]
    moved = np.asarray(kernel) + 0.06 * rng.normal(size=kernel.shape).astype(np.float32)
    features = type(model.clf.features)(model.clf.features.func, (moved, bias))
    clf = fg.Classifier(features, model.clf.head, CLASSES, model.clf.image_size)
    bank = fg.build_bank(clf, images, labels, fg.BankConfig(per_class=10, top_m=4))
    predicted = np.asarray(clf(images)).argmax(-1)
    wrong = np.flatnonzero((predicted != labels) & (np.asarray(bank.references)[labels] > 0))
    out = fg.explain(clf, bank, images[wrong], labels[wrong])
    scores = []
    for b, i in enumerate(wrong):
        similarities = np.asarray(out.edit_similarity[b, : int(out.num_edits[b])])
        p, q = float(out.p_predicted[b, 0]), float(out.p_target[b, 0])
        scores.append(suspicion(row(p, q, similarities, (), predicted[i], labels[i])))
    found = average_precision_score(planted[wrong], scores)
    chance = planted[wrong].mean()
    assert 0.2 < chance < 0.8
    assert found > chance + 0.6 * (1 - chance)
