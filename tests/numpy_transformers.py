"""Vision transformers from their weights by name, in float64 NumPy, a token at a time."""

import math

import numpy as np

erf = np.vectorize(math.erf)


def weights_of(named):
    return {name: np.asarray(value, np.float64) for name, value in named.items()}


def norm(w, layer, x, epsilon):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return x * w[f"{layer}.scale"] + w[f"{layer}.bias"]


def linear(w, layer, x):
    return x @ w[f"{layer}.kernel"] + w.get(f"{layer}.bias", 0)


def perceptron(w, first, second, x):
    x = linear(w, first, x)
    return linear(w, second, 0.5 * x * (1 + erf(x / math.sqrt(2))))


def attended(w, layer, tokens, heads, share, bias=None):
    """Attention of tokens [T, C]; `share` [T] of its mass each one keeps as a key."""
    width = tokens.shape[1] // heads
    query, key, value = np.split(linear(w, f"{layer}.qkv", tokens), 3, axis=1)
    out = np.zeros_like(tokens)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for t in range(len(tokens)):
            scores = key[:, part] @ query[t, part] / math.sqrt(width)
            scores = scores if bias is None else scores + bias[head][t]
            mass = np.exp(scores - scores.max()) * share
            out[t, part] = mass @ value[:, part] / mass.sum()
    return linear(w, f"{layer}.proj", out)


def scaled(w, name, x):
    return x * w.get(f"{name}.gamma", 1)


def vit_block(w, block, tokens, heads, share, epsilon=1e-6):
    y = attended(w, f"{block}.attn", norm(w, f"{block}.norm1", tokens, epsilon), heads, share)
    tokens = tokens + scaled(w, f"{block}.ls1", y)
    y = norm(w, f"{block}.norm2", tokens, epsilon)
    y = perceptron(w, f"{block}.mlp.fc1", f"{block}.mlp.fc2", y)
    return tokens + scaled(w, f"{block}.ls2", y)


def vit_logits(w, blocks, cells, context, heads, mass, read):
    """Logits of one image behind a cut; `blocks` are the indices of those that follow it."""
    channels = cells.shape[-1]
    tokens = np.concatenate([context, cells.reshape(-1, channels)]).astype(np.float64)
    share = np.concatenate([np.ones(len(context)), np.reshape(mass, -1)])
    for index in blocks:
        tokens = vit_block(w, f"blocks.{index}", tokens, heads, share)
    tokens = norm(w, "norm", tokens, 1e-6)
    if read:
        layers = ("head", "head_dist")[:read]
        return np.mean([linear(w, layer, tokens[r]) for r, layer in enumerate(layers)], 0)
    patches = tokens[len(context) :] * share[len(context) :, None]
    return linear(w, "head", np.concatenate([tokens[0], patches.mean(0)]))


def swin_block(w, block, x, heads, window, shift, share):
    """Cells [H, W, C], a multiple of the window; each attends to those of its window and region."""
    side = len(x)
    y = norm(w, f"{block}.norm1", x, 1e-5)
    table = w[f"{block}.attn.relative_position_bias_table"]
    shift = shift if window < side else 0
    groups = {}
    for i in range(side):
        for j in range(side):
            # After a roll by the shift; around the edge lies another region of the image.
            place = ((i - shift) % side // window, (j - shift) % side // window)
            region = (i < shift, j < shift)
            groups.setdefault((place, region), []).append((i, j))
    out = np.zeros_like(x)
    for members in groups.values():
        rows, columns = np.array(members).T
        bias = np.zeros((heads, len(members), len(members)))
        for a, (i, j) in enumerate(members):
            for b, (k, m) in enumerate(members):
                row = (i - k + window - 1) * (2 * window - 1) + j - m + window - 1
                bias[:, a, b] = table[row]
        tokens, kept = y[rows, columns], share[rows, columns]
        out[rows, columns] = attended(w, f"{block}.attn", tokens, heads, kept, bias)
    x = x + out
    y = norm(w, f"{block}.norm2", x, 1e-5)
    return x + perceptron(w, f"{block}.mlp.0", f"{block}.mlp.3", y)


def swin_merging(w, layer, x, share):
    merged = [
        [np.concatenate([x[i, j], x[i + 1, j], x[i, j + 1], x[i + 1, j + 1]]) for j in columns]
        for i, columns in ((i, range(0, len(x), 2)) for i in range(0, len(x), 2))
    ]
    half = len(x) // 2
    share = share.reshape(half, 2, half, 2).mean((1, 3))
    return linear(w, f"{layer}.reduction", norm(w, f"{layer}.norm", np.array(merged), 1e-5)), share


def swin_logits(w, units, x, heads, window, share):
    """Logits of cells [n, n, C] behind a cut; `units` the names of the layers that follow it."""
    x = np.asarray(x, np.float64)
    for name in units:
        *_, stage, index = ("0", *name.split("."))
        if name.count(".") == 2:
            number = heads[(int(stage) - 1) // 2]
            shift = window // 2 if int(index) % 2 else 0
            x = swin_block(w, name, x, number, window, shift, share)
        elif name != "norm":
            x, share = swin_merging(w, name, x, share)
    return linear(w, "head", (norm(w, "norm", x, 1e-5) * share[..., None]).mean((0, 1)))
