"""A vision transformer in torch by torchvision's names, its attention torch's own."""

from collections import OrderedDict

import torch
from torch import nn


class EncoderBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        layers = [nn.Linear(width, 4 * width), nn.GELU(), nn.Identity()]
        self.mlp = nn.Sequential(*layers, nn.Linear(4 * width, width))

    def forward(self, tokens):
        x = self.ln_1(tokens)
        tokens = tokens + self.self_attention(x, x, x, need_weights=False)[0]
        return tokens + self.mlp(self.ln_2(tokens))


class Encoder(nn.Module):
    def __init__(self, tokens, width, blocks, heads):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.zeros(1, tokens, width))
        layers = {f"encoder_layer_{i}": EncoderBlock(width, heads) for i in range(blocks)}
        self.layers = nn.Sequential(OrderedDict(layers))
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens):
        return self.ln(self.layers(tokens + self.pos_embedding))


class TorchViT(nn.Module):
    """Images [B, 3, H, W], already normalised, to logits."""

    def __init__(self, design, image_size, num_classes):
        super().__init__()
        width, patch = design.width, design.patch
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        tokens = 1 + (image_size // patch) ** 2
        self.encoder = Encoder(tokens, width, design.blocks, design.heads)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, num_classes)))

    def forward(self, images):
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        special = self.class_token.expand(len(images), -1, -1)
        return self.heads(self.encoder(torch.cat([special, patches], 1))[:, 0])
