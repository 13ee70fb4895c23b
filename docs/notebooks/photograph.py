# %% [markdown]
# # One photograph
#
# Why does a classifier call this bird by another name? The classifier and the birds come with the
# package, so this runs anywhere. With your own, replace the next cell:
# `fg.load_classifier("my_classifier")`, and images of your classes.

# %%
import numpy as np

import fgvce_jax as fg
from fgvce_jax.data import open_dataset

clf = fg.load_classifier("checkpoints/birds")
train, test = open_dataset("birds", "train"), open_dataset("birds", "test")
clf

# %% [markdown]
# Reference images: the first 500 of the training split, ten of each class. The bank keeps the ten cells
# of each that contribute most to its class, if the classifier gets the image right.

# %%
images = np.stack([train[i].image for i in range(500)]) / np.float32(255)
bank = fg.build_bank(clf, images, train.labels[:500])
bank

# %% [markdown]
# The photograph, and the question: why not what it is? An explanation prints itself in three lines.

# %%
photo, label = test[5].image, int(test.labels[5])
answer = fg.why(clf, photo, bank, label=label)
print(answer)

# %% [markdown]
# As a picture: the evidence for the wrong class that was taken away (invariant), the evidence for the
# right one that came in (dominant), and beside each replaced cell the reference image from which the new
# one is, and both classes' probabilities after each edit. `answer.plot()` is the same as a matplotlib
# figure, for a paper.

# %%
answer

# %% [markdown]
# Everything that is drawn is a number too:

# %%
for k in range(int(answer.num_edits)):
    row, column = divmod(int(answer.edit_cell[k]), 7)
    print(
        f"edit {k + 1}: cell ({row}, {column}), similarity {answer.edit_similarity[k]:.2f}, "
        f"p(Q) {answer.p_target[k]:.2f} -> {answer.p_target[k + 1]:.2f}"
    )

# %% [markdown]
# Without a label the question is: why not the runner-up?

# %%
print(fg.why(clf, test[0].image, bank))
