"""A vision transformer of jimm, as a classifier
(`pip install git+https://github.com/Locamage/jimm`).

    fgvce explain --data.name folder --data.path my_images --model.class_names names.txt \
      --model.factory examples.models.jimm_vit:classifier
"""

from jimm.models import VisionTransformer

import fgvce_jax as fg


def classifier() -> fg.Classifier:
    """ImageNet's thousand classes, with the processing that the weights were trained with."""
    model = VisionTransformer.from_pretrained("google/vit-base-patch16-224")
    return fg.wrap(model, 224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


if __name__ == "__main__":
    print(classifier().head)
