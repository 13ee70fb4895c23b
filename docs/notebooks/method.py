# %% [markdown]
# # A method in 30 lines, measured on the answer key
#
# An idea for an explanation: a cell is evidence for P against Q by how much the *margin* of the two
# changes when the cell is replaced by the mean of all cells. That takes ten lines. Is it any good? On
# the drawn birds the true reason is known, so it can be measured, beside a control and other methods.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import fgvce_jax as fg
from fgvce_jax.data.birds import PART_NAMES, Birds, differing_parts, siblings
from fgvce_jax.methods import METHODS
from fgvce_jax.metrics import localisation

clf = fg.load_classifier("checkpoints/birds")
birds = Birds("test")

# %% [markdown]
# The method. It has the signature of all others: classifier, images, the class P, the class Q.


# %%
@jax.jit
def mean_swap(clf, images, classes, contrast_classes):
    """The change of the margin of P over Q by each cell's replacement, float32 [B, n, n]."""
    cells = clf.feature_map(images).cells

    def one(cells, p, q):
        def margin(cells):
            logits = clf.head(cells)
            return logits[p] - logits[q]

        def swapped(k):
            row, column = k // cells.shape[1], k % cells.shape[1]
            return margin(cells.at[row, column].set(cells.mean((0, 1))))

        n = cells.shape[0]
        return (margin(cells) - jax.lax.map(swapped, jnp.arange(n * n))).reshape(n, n)

    return jax.vmap(one)(cells, classes, contrast_classes)


# %% [markdown]
# The question: birds that are classified correctly, against their most probable sibling, which differs
# in one part. Where is the map's peak?

# %%
indices = np.arange(200)
images = np.stack([birds[i].image for i in indices]) / np.float32(255)
labels = np.asarray(birds.labels[indices])
logits = np.asarray(clf(images))
right = logits.argmax(-1) == labels
images, labels, logits, indices = images[right], labels[right], logits[right], indices[right]
contrast = np.array([max(siblings(p), key=lambda q: z[q]) for p, z in zip(labels, logits)])
masks = np.stack([birds[int(i)].part_masks for i in indices])
differing = np.array(
    [[part in differing_parts(p, q) for part in PART_NAMES] for p, q in zip(labels, contrast)]
)
len(labels)

# %% [markdown]
# A hit: the peak lies in the differing part, dilated by half a cell.


# %%
def hits(maps):
    score = jax.jit(jax.vmap(lambda m, parts, which: localisation(m, parts, which, n=7)))
    return np.asarray(score(np.asarray(maps), masks, differing).hit)


random = np.random.default_rng(0).uniform(size=(len(labels), 7, 7)).astype(np.float32)
maps = {
    "random map": random,
    "GradCAM of P": METHODS["gradcam"](clf, images, labels),
    "CE": METHODS["ce"](clf, images, labels, contrast),
    "mean swap": mean_swap(clf, images, labels, contrast),
}
scores = {name: hits(values) for name, values in maps.items()}
for name, hit in scores.items():
    seen = hit[~np.isnan(hit)]
    error = seen.std() / len(seen) ** 0.5
    print(f"{name:13s} {100 * seen.mean():5.1f} ± {100 * error:.1f} %")

# %%
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), dpi=65)
for row, i in zip(axes, (0, 1), strict=True):
    row[0].imshow(images[i])
    row[0].contour(masks[i][differing[i]].any(0), [0.5], colors="white")
    row[0].set_title(
        f"{clf.class_names[labels[i]]}\nnot {clf.class_names[contrast[i]]}", fontsize=7
    )
    for axis, name in zip(row[1:], ("GradCAM of P", "CE", "mean swap"), strict=True):
        axis.imshow(np.maximum(np.asarray(maps[name][i]), 0), cmap="magma")
        axis.set_title(name, fontsize=8)
for axis in axes.flat:
    axis.axis("off")
figure.tight_layout()

# %% [markdown]
# The whole answer key (three settings, edits and maps, controls, a randomised network) takes the same
# function by its name:
#
# ```
# fgvce benchmark --out key --methods gradcam,ce,mypackage.mymodule:mean_swap
# ```
