# %% [markdown]
# # A confusion pair, to the bottom
#
# One explanation is a hint. What does a classifier confuse *two classes* by? Here a pair of sibling
# species is taken apart, and because the birds are drawn, the answer can be checked: siblings differ in
# exactly one part.

# %%
import matplotlib.pyplot as plt
import numpy as np

import fgvce_jax as fg
from fgvce_jax.config import MATCHED
from fgvce_jax.data.birds import PART_NAMES, Birds, differing_parts

clf = fg.load_classifier("checkpoints/birds")
train, test = Birds("train"), Birds("test")
labels = np.asarray(test.labels[:200])
images = np.stack([test[i].image for i in range(200)]) / np.float32(255)
predicted = np.concatenate(
    [np.asarray(clf(images[i : i + 50]).argmax(-1)) for i in range(0, 200, 50)]
)
print(f"accuracy {np.mean(predicted == labels):.1%}")

# %% [markdown]
# The pairs that are confused most, in either direction:

# %%
wrong = predicted != labels
pairs = np.sort(np.stack([labels[wrong], predicted[wrong]], 1), 1)
found, counts = np.unique(pairs, axis=0, return_counts=True)
for place in np.argsort(-counts)[:5]:
    first, second = found[place]
    parts = ", ".join(sorted(differing_parts(first, second)))
    print(
        f"{counts[place]} x {clf.class_names[first]} / {clf.class_names[second]}: differ in {parts}"
    )
p, q = found[np.argmax(counts)].tolist()

# %% [markdown]
# All test birds of the two classes that are called by either name, asked why they are the one and not the other. Matched evidence asks
# what the references of both classes show in such a place; it needs all cells of the references.

# %%
indices = [i for i in range(600) if test.labels[i] in (p, q)]
shown = np.stack([test[i].image for i in indices]) / np.float32(255)
references = [i for i in range(1000) if train.labels[i] in (p, q)]
pictures = np.stack([train[i].image for i in references]) / np.float32(255)
bank = fg.build_bank(clf, pictures, train.labels[references], fg.BankConfig(top_m=None))
said = np.asarray(clf(shown).argmax(-1))
shown, said, indices = (np.asarray(a)[np.isin(said, (p, q))] for a in (shown, said, indices))
asked = np.where(said == p, q, p)
out = fg.explain(clf, bank, shown, asked, MATCHED)
print(out)

# %% [markdown]
# Where do the edits lie? The mean of the invariant maps over the birds that are called by the first
# name, and over those by the second, beside the part in which the two really differ (averaged over the
# same birds).

# %%
(part,) = differing_parts(p, q)
masks = np.stack([test[int(i)].part_masks[PART_NAMES.index(part)] for i in indices])
figure, axes = plt.subplots(1, 4, figsize=(9, 2.5), dpi=70)
panels = {
    f"called {clf.class_names[p]}": np.maximum(out.invariant[said == p], 0).mean(0),
    f"called {clf.class_names[q]}": np.maximum(out.invariant[said == q], 0).mean(0),
    f"the {part}": masks.mean(0),
    "one of the birds": shown[0],
}
for axis, (title, picture) in zip(axes, panels.items(), strict=True):
    axis.imshow(picture, cmap="magma")
    axis.set_title(title, fontsize=8)
    axis.axis("off")
figure.tight_layout()

# %% [markdown]
# As a number: how often does the first edited cell touch the part, and how often would a random cell?
# For the paper's own search (`fg.SearchConfig()`, with a bank of ten cells a reference) the figures over
# all classes are on [The answer key](../key.md).

# %%
touched = masks.reshape(len(masks), 7, 16, 7, 16).any((2, 4)).reshape(len(masks), 49)
edited = np.asarray(out.num_edits) > 0
first = touched[np.arange(len(masks)), np.asarray(out.edit_cell)[:, 0]]
print(f"first edit touches the {part}: {first[edited].mean():.0%}")
print(f"a random cell would:           {touched[edited].mean():.0%}")

# %% [markdown]
# And one of them, in full:

# %%
one = int(np.flatnonzero(edited)[0])
out[one]
