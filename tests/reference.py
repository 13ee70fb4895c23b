"""FG-VCE by its definition in float64 NumPy, one cell and one candidate at a time."""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def pooled_linear(kernel, bias):
    kernel, bias = np.float64(kernel), np.float64(bias)
    return lambda cells: cells.mean((0, 1)) @ kernel + bias


def dense(kernel, bias, layers):
    """Fully connected layers on [n, n, C] cells, ReLU between them."""
    first = np.float64(kernel)

    def head(cells):
        z = np.float64(bias).copy()
        for i in range(cells.shape[0]):
            for j in range(cells.shape[1]):
                z += cells[i, j] @ first[i, j]
        for weight, offset in layers:
            z = np.maximum(z, 0) @ np.float64(weight) + np.float64(offset)
        return z

    return head


def gaussian(n, i, j, sigma):
    """G_k centred on cell (i, j)."""
    mask = np.zeros((n, n))
    for x in range(n):
        for y in range(n):
            if sigma == 0:
                mask[x, y] = float((x, y) == (i, j))
            else:
                mask[x, y] = np.exp(-((x - i) ** 2 + (y - j) ** 2) / (2 * sigma**2))
    return mask


def contributions(head, cells, c, sigma, against=None):
    """Of the class's probability; with `against`, of the difference of the two logits."""
    n = len(cells)

    def score(h):
        z = head(h)
        if against is not None:
            return z[c] - z[against]
        return -np.delete(softmax(z), c).sum()  # p - 1, which float64 knows to the last digit

    whole = score(cells)
    s = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            s[i, j] = whole - score(cells * (1 - gaussian(n, i, j, sigma))[..., None])
    return s


def cosine(a, b):
    product = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / product if product > 0 else 0.0


def matched_evidence(head, cells, predicted, target, of_predicted, of_target):
    """A place's part of the margin in P's references less that in Q's, cell by cell.

    0.3 of P's side is the cell's own part; references count by softmax(cosine / 0.03) of what is
    left of both vectors without their part along the margin's gradient.
    """
    n, cells = len(cells), np.float64(cells)

    def margin(h):
        z = head(h)
        return z[predicted] - z[target]

    slope = gradient(margin, cells)
    scores = np.zeros((n, n))
    for i, j in np.ndindex(n, n):
        w, h = slope[i, j], cells[i, j]
        unit = w / np.linalg.norm(w) if np.linalg.norm(w) else w

        def average(references, w=w, unit=unit, h=h):
            rest = [np.float64(u) - (u @ unit) * unit for u in references]
            alike = np.array([cosine(h - (h @ unit) * unit, r) for r in rest])
            weight = softmax(alike / 0.03)
            return sum(a * (u @ w) for a, u in zip(weight, references, strict=True))

        of_p = average(of_predicted) if len(of_predicted) else h @ w
        scores[i, j] = 0.3 * (h @ w) + 0.7 * of_p - average(of_target)
    return scores


def counterfactual(
    head,
    cells,
    target,
    candidates,
    sigma=0.8,
    max_iterations=100,
    evidence="predicted",
    shortlist=None,
    rivals=None,
    lambda_sim=1.0,
    lambda_distance=0.0,
):
    """Returns (edited cells, [(cell, candidate)], flipped, [p_target])."""
    h = np.float64(cells).copy()
    n, mean = len(h), np.linalg.norm(h, axis=-1).mean()
    if evidence == "matched":
        first = np.argmax(head(h))
        s = matched_evidence(head, h, first, target, rivals, candidates).reshape(-1)
    replaced, edits, p = set(), [], [softmax(head(h))[target]]
    while np.argmax(head(h)) != target and len(edits) < min(max_iterations, n * n):
        against = target if evidence == "margin" else None
        if evidence != "matched":
            s = contributions(head, h, np.argmax(head(h)), sigma, against).reshape(-1)
        cell = max((k for k in range(n * n) if k not in replaced), key=lambda k: (s[k], -k))
        i, j = divmod(cell, n)
        alike = [cosine(h[i, j], u) for u in candidates]
        tried = sorted(range(len(candidates)), key=lambda u: (-alike[u], u))[:shortlist]
        best, best_score = None, -np.inf
        for u in sorted(tried):
            trial = h.copy()
            trial[i, j] = candidates[u]
            far = np.linalg.norm(h[i, j] - candidates[u]) / mean
            score = lambda_sim * alike[u] + np.log(softmax(head(trial))[target])
            score -= lambda_distance * far
            if score > best_score:
                best, best_score = u, score
        h[i, j] = candidates[best]
        replaced.add(cell)
        edits.append((cell, best))
        p.append(softmax(head(h))[target])
    return h, edits, bool(np.argmax(head(h)) == target), p


def contrastive_maps(head, before, after, predicted, target, sigma, evidence="predicted"):
    def share(a, b):
        d = np.maximum(a - b, 0).sum(-1)
        return d / d.sum() if d.sum() > 0 else d

    opposed = (target, predicted) if evidence == "margin" else (None, None)
    invariant = contributions(head, before, predicted, sigma, opposed[0]) * share(before, after)
    dominant = contributions(head, after, target, sigma, opposed[1]) * share(after, before)
    return invariant, dominant


def candidate_bank(head, features, labels, classes, per_class, top_m, sigma):
    """{class: [(image, cell, vector)]}, image by image, best cell first."""
    bank = {}
    for c in range(classes):
        entries, used = [], 0
        for image, (cells, label) in enumerate(zip(np.float64(features), labels, strict=True)):
            if label != c or used == per_class or np.argmax(head(cells)) != c:
                continue
            used += 1
            s = contributions(head, cells, c, sigma).reshape(-1)
            for cell in sorted(range(s.size), key=lambda k: (-s[k], k))[:top_m]:
                entries.append((image, cell, cells.reshape(s.size, -1)[cell]))
        bank[c] = entries
    return bank


def gradient(function, x, step=1e-5):
    """Central differences of a scalar function, float64."""
    out = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        out[index] = (function(up) - function(down)) / (2 * step)
    return out
