"""A residual network written out in NumPy, and state dicts for it under torchvision's names."""

import numpy as np

WIDTHS, BLOCKS, SIZE, CLASSES = (4, 6), (2, 1), 32, 5
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def relu(x):
    return np.maximum(x, 0)


def conv2d(x, kernel, stride, padding):
    """x [H, W, C] and torch's kernel [O, C, k, k], one output cell at a time."""
    k = kernel.shape[-1]
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    rows = range(0, x.shape[0] - k + 1, stride)
    columns = range(0, x.shape[1] - k + 1, stride)
    return np.array(
        [[np.einsum("ijc,ocij->o", x[i : i + k, j : j + k], kernel) for j in columns] for i in rows]
    )


def max_pool(x, size, padding):
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)), constant_values=-np.inf)
    steps = range(0, len(x) - size + 1, 2)
    return np.array([[x[i : i + size, j : j + size].max((0, 1)) for j in steps] for i in steps])


def batch_norm(x, weights, name):
    scale = weights[f"{name}.weight"] / np.sqrt(weights[f"{name}.running_var"] + 1e-5)
    return (x - weights[f"{name}.running_mean"]) * scale + weights[f"{name}.bias"]


def small_resnet(weights, image, activation=relu):
    """Cells and logits of one image [H, W, 3]; the stem strides by 4."""
    x = conv2d((image - MEAN) / STD, weights["conv1.weight"], 2, 1)
    x = max_pool(activation(batch_norm(x, weights, "bn1")), 3, 1)
    for stage, count in enumerate(BLOCKS, 1):
        for index in range(count):
            block = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            y = conv2d(x, weights[f"{block}.conv1.weight"], stride, 1)
            y = activation(batch_norm(y, weights, f"{block}.bn1"))
            y = batch_norm(
                conv2d(y, weights[f"{block}.conv2.weight"], 1, 1), weights, f"{block}.bn2"
            )
            if f"{block}.downsample.0.weight" in weights:
                x = conv2d(x, weights[f"{block}.downsample.0.weight"], stride, 0)
                x = batch_norm(x, weights, f"{block}.downsample.1")
            x = activation(x + y)
    return x, x.mean((0, 1)) @ weights["fc.weight"].T + weights["fc.bias"]


def state_dict(seed=0):
    """Random weights of `small_resnet`, float32, under torchvision's names."""
    rng = np.random.default_rng(seed)
    weights = {}

    def conv(name, inputs, outputs, size):
        fan = inputs * size**2
        weights[f"{name}.weight"] = rng.normal(size=(outputs, inputs, size, size)) / fan**0.5

    def norm(name, channels):
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, channels)
        weights[f"{name}.bias"] = rng.normal(size=channels)
        weights[f"{name}.running_mean"] = rng.normal(size=channels)
        weights[f"{name}.running_var"] = rng.uniform(0.5, 1.5, channels)
        weights[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 3, WIDTHS[0], 3)
    norm("bn1", WIDTHS[0])
    channels = WIDTHS[0]
    for stage, (width, count) in enumerate(zip(WIDTHS, BLOCKS, strict=True), 1):
        for index in range(count):
            block = f"layer{stage}.{index}"
            conv(f"{block}.conv1", channels, width, 3)
            norm(f"{block}.bn1", width)
            conv(f"{block}.conv2", width, width, 3)
            norm(f"{block}.bn2", width)
            if channels != width:
                conv(f"{block}.downsample.0", channels, width, 1)
                norm(f"{block}.downsample.1", width)
            channels = width
    weights["fc.weight"] = rng.normal(size=(CLASSES, channels))
    weights["fc.bias"] = rng.normal(size=CLASSES)
    return {
        name: array.astype(np.float32) if array.dtype == float else array
        for name, array in weights.items()
    }


def hugging_face_names(weights):
    """The same state dict as Hugging Face's ResNetForImageClassification would name it."""
    renamed = {}
    for name, array in weights.items():
        parts = name.split(".")
        if parts[0] == "conv1":
            new = ["resnet.embedder.embedder.convolution"]
        elif parts[0] == "bn1":
            new = ["resnet.embedder.embedder.normalization"]
        elif parts[0] == "fc":
            new = ["classifier.1"]
        else:
            new = [f"resnet.encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"]
            if parts[2] == "downsample":
                new.append("shortcut." + ("convolution", "normalization")[int(parts[3])])
            else:
                kind = "convolution" if parts[2].startswith("conv") else "normalization"
                new.append(f"layer.{int(parts[2][-1]) - 1}.{kind}")
        renamed[".".join([*new, parts[-1]])] = array
    return renamed
