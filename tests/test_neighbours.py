"""The nearest references, by a plain loop over them."""

import numpy as np
from methods.tiny import problems, tiny

import fgvce_jax as fg
from fgvce_jax.neighbours import nearest_classes, reference_features


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_the_nearest_references_by_a_plain_loop():
    model = tiny()
    images, predicted, _ = problems(model, count=40)
    bank = fg.build_bank(model.clf, images, predicted, fg.BankConfig(per_class=4, top_m=3))
    references = []
    for label in range(5):
        group = bank.group[label]
        for image in sorted(set(bank.image[group][bank.valid[group]]) if group >= 0 else ()):
            held = [
                bank.cells[group, k]
                for k in range(len(bank.image[group]))
                if bank.image[group, k] == image
            ]
            references.append((label, np.mean(held, axis=0)))
    assert len(references) > 8
    mean = np.mean([feature for _, feature in references], axis=0)
    queries = np.array([model.features(image) for image in images[:7]], np.float32)
    got = nearest_classes(reference_features(bank), queries, k=3)
    assert got.shape == (7, 3)
    for query, classes in zip(queries, got, strict=True):
        feature = query.mean((0, 1)) - mean
        ranked = sorted(references, key=lambda r: -cosine(feature, r[1] - mean))
        assert classes.tolist() == [label for label, _ in ranked[:3]]


def test_a_bank_of_all_classes_in_one_does_not_hold_the_class_of_a_reference():
    model = tiny()
    images, predicted, _ = problems(model, count=20)
    config = fg.BankConfig(per_class=2, top_m=3, reference="all")
    assert reference_features(fg.build_bank(model.clf, images, predicted, config)) is None
