"""The ResNet, ConvNeXt and ViT of bonsai, as classifiers
(`pip install git+https://github.com/jax-ml/bonsai`).

    fgvce explain --data.name folder --data.path my_images --model.class_names names.txt \
      --model.factory examples.models.bonsai_models:resnet
"""

from bonsai.models.convnext.modeling import ConvNeXt
from bonsai.models.resnet.modeling import ResNet
from bonsai.models.vit.modeling import ViTClassificationModel

import fgvce_jax as fg

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def resnet() -> fg.Classifier:
    """Cut before the mean, with a linear head."""
    return fg.wrap(ResNet.from_pretrained("microsoft/resnet-50"), 224, **IMAGENET)


def convnext() -> fg.Classifier:
    """Cut before the mean."""
    return fg.wrap(ConvNeXt.from_pretrained("facebook/convnext-tiny-224"), 224, **IMAGENET)


def vit() -> fg.Classifier:
    """Cut before the last block."""
    model = ViTClassificationModel.from_pretrained("google/vit-base-patch16-224")
    return fg.wrap(model, 224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


if __name__ == "__main__":
    print(resnet().head)
