"""torchvision beside a torch that it was not built for.

Two of its compiled operators are asked for when it is imported (transformers does so as well), and
no network calls them.
"""

import torch

OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
