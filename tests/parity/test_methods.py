"""Methods held to captum, to torchcam, and to transcriptions in torch of their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchcam.methods as cams
from agreement import assert_close
from captum.attr import GuidedBackprop, IntegratedGradients, LayerGradCam
from networks import resnet, some_images, vgg
from torch import nn
from torch_networks import Block, Network, to_torch

from fgvce_jax.methods import METHODS
from fgvce_jax.methods.rise import shifted_upsampling
from fgvce_jax.models import ModelSpec

torch.set_num_threads(1)


@pytest.fixture(scope="module", params=["resnet", "vgg"])
def pair(request):
    """(ours, torch's, images, classes)."""
    clf = resnet() if request.param == "resnet" else vgg()
    return clf, Network(clf), *some_images()


def test_the_two_networks_agree(pair):
    clf, network, images, _ = pair
    assert_close(clf(images), network(to_torch(images)).detach())


# captum


@pytest.mark.parametrize("clf", [resnet(), vgg(ModelSpec("vgg16"))], ids=["resnet", "vgg16"])
def test_guided_backpropagation(clf):
    images, classes = some_images()
    theirs = GuidedBackprop(Network(clf)).attribute(
        to_torch(images).requires_grad_(), target=torch.tensor(classes).long()
    )
    assert_close(METHODS["gbp"](clf, images, classes), theirs.detach().abs().sum(1))


@pytest.mark.parametrize(
    ("ours", "theirs"), [("gauss_legendre", "gausslegendre"), ("middle", "riemann_middle")]
)
def test_integrated_gradients(pair, ours, theirs):
    clf, network, _, _ = pair
    # The gradient jumps where a ReLU or a max-pool turns over, and next to that place rounding
    # decides. The VGG's many units have such a place near one of 50 points, but not of these 10.
    images, classes = some_images(seed=3)
    steps = 50 if clf.spec else 10
    theirs = IntegratedGradients(network).attribute(
        to_torch(images), target=torch.tensor(classes).long(), n_steps=steps, method=theirs
    )
    assert_close(METHODS["ig"](clf, images, classes, rule=ours, steps=steps), theirs.abs().sum(1))


def test_gradcam_of_captum(pair):
    clf, network, images, classes = pair
    theirs = LayerGradCam(network, network.features).attribute(
        to_torch(images), target=torch.tensor(classes).long(), relu_attributions=True
    )
    assert_close(METHODS["gradcam"](clf, images, classes), theirs[:, 0].detach())


# torchcam


@pytest.mark.parametrize(
    ("name", "extractor"),
    [("gradcam", "GradCAM"), ("layercam", "LayerCAM"), ("scorecam", "ScoreCAM")],
)
def test_maps_of_torchcam(pair, name, extractor):
    clf, network, images, classes = pair
    with getattr(cams, extractor)(network, "features") as extract:
        scores = network(to_torch(images))
        (theirs,) = extract(classes.tolist(), scores, normalized=False)
    assert_close(METHODS[name](clf, images, classes), theirs.detach())


def test_finer_cam(pair):
    """torchcam has the paper's even weights."""
    clf, network, images, classes = pair
    with cams.FinerCAM(network, "features", gamma=0.6, num_references=3) as extract:
        scores = network(to_torch(images))
        (theirs,) = extract(classes.tolist(), scores, normalized=False)
    ours = METHODS["finercam"](clf, images, classes, weights="even", strength=0.6)
    assert_close(ours, theirs.detach())


def finer_weighted_target(logits, main, references, alpha):
    """The score of the authors' code: gaps weighted by the references' probabilities."""
    p = torch.softmax(logits, -1)
    gaps = sum(p[r] * (logits[main] - alpha * logits[r]) for r in references)
    return gaps / (sum(p[r] for r in references) + 1e-9)


def test_finer_cam_of_the_authors(pair):
    clf, network, images, classes = pair
    cells = network.features((to_torch(images) - network.mean) / network.std)
    cells = cells.detach().requires_grad_()
    logits = network.classifier(network.pool(cells).flatten(1))
    near = (logits - logits.gather(1, torch.tensor(classes).long()[:, None])).abs().argsort(1)
    total = sum(
        finer_weighted_target(z, int(order[0]), order[1:4].tolist(), 1.0)
        for z, order in zip(logits, near, strict=True)
    )
    (slope,) = torch.autograd.grad(total, cells)
    theirs = (slope.mean((2, 3), keepdim=True) * cells).sum(1).relu()
    assert_close(METHODS["finercam"](clf, images, classes), theirs.detach())


def test_gradcampp(pair):
    # torchcam (0.4, 0.5) divides by alpha's denominator in a copy that it drops, so its alpha is
    # g^2. From it are the activations and gradients, the weights are the definition's.
    clf, network, images, classes = pair
    with cams.GradCAMpp(network, "features") as extract:
        scores = network(to_torch(images))
        extract(classes.tolist(), scores, normalized=False)
        h, g = extract.hook_a[0].detach(), extract.hook_g[0].detach()
    numerator = g**2
    alpha = numerator / (2 * numerator + (h * g**3).sum((2, 3), keepdim=True))
    weights = (alpha.nan_to_num(0, 0, 0) * g.relu()).sum((2, 3), keepdim=True)
    assert_close(METHODS["gradcampp"](clf, images, classes), (weights * h).sum(1).relu())


# RISE


def test_rise(pair):
    clf, network, images, classes = pair
    masks = np.random.default_rng(1).uniform(size=(50, 32, 32)).astype(np.float32)
    theirs = torch.zeros(len(images), 32, 32)
    with torch.no_grad():
        for total, image, c in zip(theirs, to_torch(images), classes, strict=True):
            for mask in torch.tensor(masks):
                total += network((image * mask)[None]).softmax(1)[0, c] * mask / (50 * 0.5)
    assert_close(METHODS["rise"](clf, images, classes, masks=jnp.asarray(masks), chunk=16), theirs)


@pytest.mark.parametrize("shift", [0, 3, 4])
def test_masks_of_rise_are_upsampled_and_cropped(shift):
    grid, size, cell = 7, 32, 5
    values = torch.rand(grid, 3, generator=torch.manual_seed(0))
    stretched = F.interpolate(
        values.T[None], (grid + 1) * cell, mode="linear", align_corners=False
    )[0].T
    ours = shifted_upsampling(size, grid, shift) @ values.numpy()
    assert_close(ours[None], stretched[None, shift : shift + size])


# EP


def transcribed_ep(network, image, c, start, area, iterations, step, sigma, paper):
    """Fong et al., 2019, for one image [3, H, W], mask by mask pixel.

    As TorchRay has it, or (`paper`) with the contrastive reward, nothing beyond the image's border
    and the mask after the last step.
    """
    _, height, width = image.shape
    margin = int(np.ceil(sigma / step)) * step
    pixels = [torch.arange(-margin, (n - 1) * step + margin + 1) for n in start.shape]
    reach = margin + step  # every parameter this near (in whole cells) has a vote
    centres = [torch.arange(-margin - reach, (n - 1) * step + margin + reach + 1, step)
               for n in start.shape]  # fmt: skip

    def smooth(parameters):
        padding = (margin + reach) // step
        parameters = F.pad(parameters, (padding,) * 4)
        rows = []
        for u in pixels[0]:
            near_y = ((u.div(step, rounding_mode="floor") * step) - centres[0]).abs() <= reach
            dy = (u - centres[0][near_y])[:, None, None]
            x_cell = pixels[1].div(step, rounding_mode="floor") * step
            dx = pixels[1][:, None] - centres[1]
            near_x = (x_cell[:, None] - centres[1]).abs() <= reach
            z = torch.sqrt((dy**2 + dx[None] ** 2).float()) / sigma
            k = torch.exp(-2 * (z - 0.5).clamp(min=0) ** 2)
            values = k * parameters[near_y][:, None, :]
            votes = torch.exp(20 * values) * near_x
            rows.append((votes * values).sum((0, 2)) / votes.sum((0, 2)))
        return torch.stack(rows)

    def crop(whole):
        return whole[margin : margin + height, margin : margin + width]

    levels = []
    for level in range(8):
        blur = 20 * (1 - level / 7)
        if blur == 0:
            levels.append(image)
            continue
        if not paper:
            far = int(np.ceil(4 * blur))
            weight = torch.exp(-(torch.arange(-far, far + 1) ** 2) / (2 * blur**2))
            weight = (weight / weight.sum()).expand(3, 1, 1, -1)
            seen = ((image - network.mean) / network.std)[None]
            seen = F.conv2d(seen, weight, padding=(0, far), groups=3)
            seen = F.conv2d(seen, weight.mT, padding=(far, 0), groups=3)[0]
            levels.append(seen * network.std + network.mean)
            continue
        filters = []
        for size in (height, width):
            distance = torch.arange(size)[:, None] - torch.arange(size)
            weight = torch.exp(-(distance**2) / (2 * blur**2))
            filters.append(weight / weight.sum(1, keepdim=True))
        levels.append(filters[0] @ image @ filters[1].T)
    levels = torch.stack([*levels, levels[-1]])

    parameters = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.SGD([parameters], lr=0.01, momentum=0.9, dampening=0.9)
    weight = 300.0
    for t in range(iterations):
        whole = smooth(parameters)
        reference = torch.ones(whole.numel())
        reference[: int(whole.numel() * (1 - area))] = 0
        place = crop(whole) * 7
        below = place.floor()
        part = place - below
        index = below.long()[None, None].expand(1, 3, -1, -1)
        low, high = levels.gather(0, index)[0], levels.gather(0, index + 1)[0]
        seen = (1 - part) * low + part * high
        logits = network((seen.flip(2) if t % 2 == 0 else seen)[None])[0]
        reward = logits[c]
        if paper:
            reward = reward - torch.cat([logits[:c], logits[c + 1 :]]).max()
        off = ((whole.flatten().sort()[0] - reference) ** 2).mean()
        optimiser.zero_grad()
        (weight * off - reward).backward()
        optimiser.step()
        parameters.data.clamp_(0, 1)
        weight *= 1.0035
    return crop(smooth(parameters.detach()) if paper else whole.detach())


@pytest.mark.parametrize(
    "options",
    [{"area": 0.2, "iterations": 8, "step": 5, "sigma": 10}, {"iterations": 4}],
    ids=["small", "default"],
)
@pytest.mark.parametrize("paper", [False, True], ids=["code", "paper"])
def test_ep(options, paper):
    clf = resnet()
    network = Network(clf)
    images, classes = some_images(count=2)
    of_code = {"area": 0.1, "step": 7, "sigma": 21} | options
    side = -(-32 // of_code["step"])
    start = np.random.default_rng(2).uniform(0.2, 0.9, (side, side)).astype(np.float32)
    theirs = [
        transcribed_ep(network, image, c, start, **of_code, paper=paper)
        for image, c in zip(to_torch(images), classes, strict=True)
    ]
    if paper:
        options = options | {"reward": "contrastive", "border": "none", "after_last_step": True}
    ours = METHODS["ep"](clf, images, classes, start=jnp.asarray(start), **options)
    assert_close(ours, torch.stack(theirs))


# FG-CAM


def folded(conv, bn):
    if bn is None:
        return conv.weight
    return conv.weight * (bn.weight / torch.sqrt(bn.running_var + bn.eps))[:, None, None, None]


def ratio(relevance, z):
    return torch.where(z > 0, relevance / z, 0)


def backwards(conv, x, weight, s):
    return F.conv_transpose2d(
        s,
        weight,
        stride=conv.stride,
        padding=conv.padding,
        output_padding=[
            (n + 2 * conv.padding[0] - conv.kernel_size[0]) % conv.stride[0] for n in x.shape[2:]
        ],
    )


def z_plus(conv, bn, x, relevance):
    weight = folded(conv, bn).clamp(min=0)
    z = F.conv2d(x, weight, None, conv.stride, conv.padding)
    return x * backwards(conv, x, weight, ratio(relevance, z))


def z_plus_block(block, x, relevance):
    """The sum that ends the block is one layer of two inputs; before it the branch's layers."""
    units, inputs = list(block.branch), [x]
    for start in range(0, len(units) - 2, 3):  # convolution, norm and ReLU; the last has no ReLU
        inputs.append(block.branch[start : start + 3](inputs[-1]))
    *inputs, inner = inputs
    last, last_norm = units[-2:]
    weight = folded(last, last_norm).clamp(min=0)
    branch = F.conv2d(inner, weight, None, last.stride, last.padding)
    if isinstance(block.downsample, nn.Identity):
        s = ratio(relevance, branch + x)
        direct = x * s
    else:
        conv, bn = block.downsample
        skip = folded(conv, bn).clamp(min=0)
        s = ratio(relevance, branch + F.conv2d(x, skip, None, conv.stride))
        direct = x * backwards(conv, x, skip, s)
    relevance = inner * backwards(last, inner, weight, s)
    for k, y in reversed(list(enumerate(inputs))):
        relevance = z_plus(units[3 * k], units[3 * k + 1], y, relevance)
    return relevance + direct


def z_bounded(conv, bn, x, relevance):
    weight = folded(conv, bn)
    above, below = weight.clamp(min=0), weight.clamp(max=0)
    low = x.amin((1, 2, 3), keepdim=True).expand_as(x)
    high = x.amax((1, 2, 3), keepdim=True).expand_as(x)

    def forward(x, weight):
        return F.conv2d(x, weight, None, conv.stride, conv.padding)

    s = ratio(relevance, forward(x, weight) - forward(low, above) - forward(high, below))
    return sum(
        sign * y * backwards(conv, x, w, s)
        for sign, y, w in ((1, x, weight), (-1, low, above), (-1, high, below))
    )


def winner_takes_all(pool, x, relevance):
    y, index = F.max_pool2d(x, pool.kernel_size, pool.stride, pool.padding, return_indices=True)
    won = torch.where(y > 0, relevance, 0)
    back = torch.zeros_like(x).flatten(2)
    return back.scatter_add(2, index.flatten(2), won.flatten(2)).view_as(x)


def transcribed_fgcam(network, images, classes, first):
    """GradCAM's terms carried back through the layers from `first` on."""
    x = ((images - network.mean) / network.std).detach()
    inputs = []
    with torch.no_grad():
        for layer in network.features:
            inputs.append(x)
            x = layer(x)
    x.requires_grad_()
    logits = network.classifier(network.pool(x).flatten(1))
    (gradient,) = torch.autograd.grad(logits[range(len(x)), classes].sum(), x)
    relevance = (gradient.mean((2, 3), keepdim=True) * x).detach()
    layers = list(network.features)
    with torch.no_grad():
        for i in reversed(range(first, len(layers))):
            layer, x = layers[i], inputs[i]
            if isinstance(layer, Block):
                relevance = z_plus_block(layer, x, relevance)
            elif isinstance(layer, nn.MaxPool2d):
                relevance = winner_takes_all(layer, x, relevance)
            elif isinstance(layer, nn.Conv2d):
                rule = z_bounded if i == 0 else z_plus
                relevance = rule(layer, layers[i + 1], x, relevance)
    return relevance.sum(1).relu()


def check_fgcam(clf, network, images, stage):
    classes = np.asarray(clf(images)).argmax(-1)
    # By default a ResNet's relevance stops after layer1; a VGG's after two rounds of convolution,
    # norm, ReLU and pool.
    blocks = [k for k, name in enumerate(clf.features.module().order) if "layer1." in name]
    first = 0 if stage else max(blocks, default=7) + 1
    theirs = transcribed_fgcam(network, to_torch(images), classes.tolist(), first)
    assert_close(METHODS["fgcam"](clf, images, classes, stage=stage), theirs)


@pytest.mark.parametrize("stage", ["input", None])
def test_fgcam(pair, stage):
    clf, network, images, _ = pair
    check_fgcam(clf, network, images, stage)


@pytest.mark.parametrize("stage", ["input", None])
def test_fgcam_of_resnet50(stage):
    """Its blocks are bottlenecks, of three convolutions."""
    clf = resnet(ModelSpec("resnet50"), size=64)
    check_fgcam(clf, Network(clf), some_images(2, 64)[0], stage)
