"""Contrastive methods held to transcriptions of their definitions in float64, on the same weights.

Their maps are products of differences, so that a transcription in float32 would have errors of its
own as large as what it is to find.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
import reference
import torch
import torch.nn.functional as F
from agreement import assert_close
from networks import resnet, some_images, vgg
from torch_networks import Network, tensor, to_torch

import fgvce_jax as fg
from fgvce_jax.heads import CalmHead
from fgvce_jax.methods import METHODS
from fgvce_jax.methods.cce import pgd
from fgvce_jax.methods.cve import cve_counterfactuals, cve_semantic_counterfactuals

BUILD = {"resnet": resnet, "vgg": vgg}


def balanced(clf):
    """Random weights say one class of everything; here the classes are shared out, none is sure."""
    logits = clf(some_images(count=32, seed=1)[0])
    mean = logits.mean(0)
    scale = 3 / (logits - mean).std()
    head = clf.head
    if not hasattr(head, "layers"):
        head = replace(head, kernel=head.kernel * scale, bias=(head.bias - mean) * scale)
    else:
        kernel, bias = head.layers[-1]
        last = kernel * scale, (bias - mean) * scale
        head = replace(head, layers=(*head.layers[:-1], last))
    return replace(clf, head=head)


class Case:
    """A network twice, ours and torch's in float64; images, P and Q."""

    def __init__(self, name):
        self.clf = balanced(BUILD[name]())
        self.network = Network(self.clf).double()
        # Of other images some leave hardly anything of P to "+SP", or two cells level to float32.
        self.images, _ = some_images(count=6, seed=2)
        self.predicted = np.asarray(self.clf(self.images)).argmax(-1).astype(np.int32)
        self.contrast = (self.predicted + np.int32([1, 2, 3, 4, 1, 2])) % 5

    def cells(self, images):
        with torch.no_grad():
            return self.network.features((images - self.network.mean) / self.network.std)

    def head(self, cells):
        return self.network.classifier(self.network.pool(cells).flatten(1))

    def numpy_head(self, cells):
        """Of one sample's cells [n, n, C]."""
        head = self.clf.head
        if hasattr(head, "layers"):
            return reference.dense(head.kernel, head.bias, head.layers)(cells)
        return reference.pooled_linear(head.kernel, head.bias)(cells)

    def gradients(self, images, score):
        """(cells, d score(logits) / d cells), score giving one number per sample."""
        cells = self.cells(images).requires_grad_()
        (slope,) = torch.autograd.grad(score(self.head(cells)).sum(), cells)
        return cells.detach(), slope

    def gradcam(self, images, classes):
        cells, slope = self.gradients(images, lambda z: z.gather(1, index(classes)))
        return F.relu((slope.mean((2, 3), keepdim=True) * cells).sum(1))

    def partition_weight(self, cells, classes, sigma=0.8):
        """Clipped, max-normalised contributions from n^2 masked passes."""
        n = cells.shape[-1]
        axis = torch.arange(n)
        maps = torch.zeros(len(cells), n, n, dtype=cells.dtype)
        with torch.no_grad():
            whole = self.head(cells).softmax(1).gather(1, index(classes))[:, 0]
            for i in range(n):
                for j in range(n):
                    square = ((axis[:, None] - i) ** 2 + (axis - j) ** 2).double()
                    masked = cells * (1 - torch.exp(-square / (2 * sigma**2)))
                    left = self.head(masked).softmax(1).gather(1, index(classes))[:, 0]
                    maps[:, i, j] = whole - left
        maps = maps.clamp(min=0)
        return maps / maps.amax((1, 2), keepdim=True)


def exact(images):
    """[B, H, W, 3] as torch has it, in float64."""
    return to_torch(images).double()


def index(classes):
    return torch.tensor(np.asarray(classes)).long()[:, None]


@pytest.fixture(scope="module", params=["resnet", "vgg"])
def case(request):
    return Case(request.param)


@pytest.mark.parametrize("sp_sigma", [None, 0.8])
def test_ce(case, sp_sigma):
    targets = index(case.contrast)[:, 0]
    cells, slope = case.gradients(
        exact(case.images), lambda z: F.cross_entropy(z, targets, reduction="none")
    )
    theirs = F.relu((slope.mean((2, 3), keepdim=True) * cells).sum(1))
    if sp_sigma:
        theirs = theirs * case.partition_weight(cells, case.predicted)
    ours = METHODS["ce"](case.clf, case.images, case.predicted, case.contrast, sp_sigma=sp_sigma)
    assert_close(ours, theirs)


@pytest.mark.parametrize("reading", ["code", "paper"])
@pytest.mark.parametrize("sp_sigma", [None, 0.8])
def test_scout(case, sp_sigma, reading):
    def attribution(score, part=lambda slope: slope):
        cells, slope = case.gradients(exact(case.images), score)
        return (cells * part(slope)).sum(1)

    for_p = attribution(lambda z: z.gather(1, index(case.predicted)))
    for_q = attribution(lambda z: z.gather(1, index(case.contrast)))
    if reading == "code":
        for_p, for_q = (torch.where(values < 0, 1e-7, values) for values in (for_p, for_q))
        sure = attribution(lambda z: z.softmax(1).amax(1), F.relu)
    else:
        for_p, for_q = F.relu(for_p), F.relu(for_q)
        sure = F.relu(attribution(lambda z: z.softmax(1).amax(1)))
    theirs = for_p * (for_q.amax((1, 2), keepdim=True) - for_q) * sure
    if sp_sigma:
        cells = case.cells(exact(case.images))
        theirs = theirs * case.partition_weight(cells, case.predicted)
    ours = METHODS["scout"](
        case.clf, case.images, case.predicted, case.contrast, reading=reading, sp_sigma=sp_sigma
    )
    assert_close(ours, theirs)


def attack(case, noise, eps, step, steps):
    """Image by image, as the definition reads."""
    attacked, counts = [], []
    for image, target, start in zip(
        exact(case.images), index(case.contrast)[:, 0], exact(noise), strict=True
    ):
        low, high = (image - eps).clamp(0, 1), (image + eps).clamp(0, 1)
        x, count = (image + start).clamp(low, high), 0
        while case.network(x[None]).argmax() != target and count < steps:
            x.requires_grad_()
            loss = F.cross_entropy(case.network(x[None]), target[None])
            (slope,) = torch.autograd.grad(loss, x)
            x, count = (x.detach() - step * slope.sign()).clamp(low, high), count + 1
        attacked.append(x.detach())
        counts.append(count)
    return torch.stack(attacked), counts


@pytest.fixture(scope="module")
def attacked(case):
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, case.images.shape).astype(np.float32)
    options = {"eps": 0.04, "step": 0.01, "steps": 8}
    return options | {"noise": noise}, *attack(case, noise, **options)


def test_pgd(case, attacked):
    options, theirs, counts = attacked
    ours = pgd(case.clf, case.images, case.contrast, **options)
    np.testing.assert_array_equal(ours.num_steps, counts)
    assert len(set(counts)) > 1
    # A step is the sign of a gradient, which rounding turns over where the gradient is next to 0.
    other = np.abs(np.asarray(ours.images) - theirs.permute(0, 2, 3, 1).numpy()) > 1e-6
    print(f"{other.mean():.1e} of the values differ")
    assert other.mean() < 1e-3


@pytest.mark.parametrize("sp_sigma", [None, 0.8])
@pytest.mark.parametrize("region", ["invariant", "dominant"])
def test_cce(case, attacked, region, sp_sigma):
    options, after, _ = attacked
    before = exact(case.images)
    if region == "invariant":
        classes, with_it, without = case.predicted, before, after
    else:
        classes, with_it, without = case.contrast, after, before
    theirs = F.relu(case.gradcam(with_it, classes) - case.gradcam(without, classes))
    if sp_sigma:
        theirs = theirs * case.partition_weight(case.cells(with_it), classes)
    ours = METHODS["cce"](
        case.clf,
        case.images,
        case.predicted,
        case.contrast,
        region=region,
        sp_sigma=sp_sigma,
        **options,
    )
    assert_close(ours, theirs)


def exhaustive(case, cells, target, candidates, allowed, bonus):
    """Goyal et al. for one sample: all allowed pairs through the head, the best one stays.

    Args:
        cells: [C, n, n].
        candidates: [N, C].
        allowed: Pairs (cell, candidate).
        bonus: [n^2, N], added to log p_target.
    """
    n = cells.shape[-1]
    cells, made = cells.clone(), []
    with torch.no_grad():
        while case.head(cells[None]).argmax() != target and allowed:
            trials = cells.repeat(len(allowed), 1, 1, 1)
            for trial, (cell, candidate) in zip(trials, allowed, strict=True):
                trial[:, cell // n, cell % n] = candidates[candidate]
            values = case.head(trials).log_softmax(1)[:, target]
            values = values + torch.stack([bonus[pair] for pair in allowed])
            cell, candidate = allowed[int(values.argmax())]
            cells[:, cell // n, cell % n] = candidates[candidate]
            made.append((cell, candidate))
            allowed = [(q, d) for q, d in allowed if q != cell and d != candidate]
    return made


@pytest.mark.parametrize("semantic", [False, True])
def test_cve(case, semantic):
    images, _ = some_images(seed=1, count=32)
    said = np.asarray(case.clf(images)).argmax(-1).astype(np.int32)
    bank = fg.build_bank(case.clf, images, said, fg.BankConfig(per_class=2, top_m=None))
    usable = [k for k in range(5) if k not in bank.missing()]
    contrast = np.int32([next(k for k in usable if k != p) for p in case.predicted])
    search = cve_semantic_counterfactuals if semantic else cve_counterfactuals
    out = search(case.clf, case.images, contrast, bank=bank, chunk=5)

    total = 0
    for b, cells in enumerate(case.cells(exact(case.images))):
        valid = np.asarray(bank.valid[contrast[b]])
        candidates = tensor(bank.cells[contrast[b]]).double()[torch.tensor(valid)]
        pairs = [(q, d) for q in range(16) for d in range(len(candidates))]
        bonus = torch.zeros(16, len(candidates))
        if semantic:
            flat = F.normalize(cells.reshape(len(cells), -1).T, dim=1)
            alike = flat @ F.normalize(candidates, dim=1).T
            bonus = 0.4 * F.log_softmax(alike / 0.1, dim=1)
            best = torch.sort(alike.reshape(-1), descending=True, stable=True).indices
            pairs = [pairs[k] for k in best[: int(0.2 * len(best))]]
            pairs.sort()
        made = exhaustive(case, cells, int(contrast[b]), candidates, pairs, bonus)
        count = int(out.num_edits[b])
        got = np.stack([out.edit_cell[b, :count], out.edit_candidate[b, :count]], axis=-1)
        assert [tuple(edit) for edit in got.tolist()] == made
        total += count
    assert total > len(contrast)


def test_calm(case):
    channels = case.clf.features(case.images).shape[-1]
    head = CalmHead.create(jax.random.key(0), channels, 5)
    head = replace(head, attention_kernel=head.attention_kernel / 8)
    clf = replace(case.clf, head=head)
    kernel, bias, to_attention, offset = (tensor(leaf).double() for leaf in jax.tree.leaves(head))
    cells = case.cells(exact(case.images))
    of_class = F.conv2d(cells, kernel.T[:, :, None, None], bias).softmax(1)
    attention = F.relu(F.conv2d(cells, to_attention.T[:, :, None, None], offset))
    attention = attention / attention.sum((2, 3), keepdim=True)
    joint = of_class * attention
    theirs = torch.stack([joint[b, c] for b, c in enumerate(case.predicted)])
    assert_close(METHODS["calm"](clf, case.images, case.predicted), theirs)
    assert_close(jax.nn.softmax(clf(case.images)), joint.sum((2, 3)))


def test_contributions(case):
    cells = case.cells(exact(case.images))
    weight = case.partition_weight(cells, case.predicted)
    ours = np.maximum(METHODS["contributions"](case.clf, case.images, case.predicted), 0)
    assert_close(ours / ours.max((1, 2), keepdims=True), weight)


@pytest.mark.parametrize("name", ["fgvce_invariant", "fgvce_dominant"])
def test_fgvce(case, name):
    """Bank, search and maps, one cell and one candidate at a time, from torch's cells."""
    images, _ = some_images(seed=1, count=32)
    said = np.asarray(case.clf(images)).argmax(-1)
    bank = fg.build_bank(case.clf, images, said, fg.BankConfig(per_class=3, top_m=4))
    usable = [k for k in range(5) if k not in bank.missing()]
    contrast = np.int32([next(k for k in usable if k != p) for p in case.predicted])
    ours = METHODS[name](case.clf, case.images, case.predicted, contrast, bank=bank)

    cells, of_references = (
        case.cells(exact(x)).permute(0, 2, 3, 1).numpy() for x in (case.images, images)
    )
    candidates = reference.candidate_bank(case.numpy_head, of_references, said, 5, 3, 4, 0.8)
    theirs, edits = [], 0
    for before, p, q in zip(cells, case.predicted, contrast, strict=True):
        offered = [vector for _, _, vector in candidates[q]]
        after, made, *_ = reference.counterfactual(case.numpy_head, before, q, offered)
        both = reference.contrastive_maps(case.numpy_head, before, after, p, q, 0.8)
        theirs.append(both[name == "fgvce_dominant"])
        edits += len(made)
    assert_close(ours, np.stack(theirs))
    assert edits > len(contrast)
