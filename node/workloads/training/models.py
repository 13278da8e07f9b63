"""The models of `ml_training` in PyTorch: an MLP, ResNet-50 and a transformer like GPT-2.

The names of weights are those of torchvision's `resnet50` and of GPT-2 in `transformers` (without its prefix), so that
states can be exchanged. torchvision itself is not used: its wheel does not work with PyTorch's CPU build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh.kinds.ml_training import MlTrainingPayload

if TYPE_CHECKING:
    from torch import Tensor, nn


def build(payload: MlTrainingPayload) -> nn.Module:
    """The model with new weights from PyTorch's random state; its outputs are logits."""
    sizes = payload.sizes
    if payload.model == "mlp":
        return mlp(sizes.features, sizes.width, sizes.layers, sizes.classes)
    if payload.model == "resnet50":
        return resnet50(sizes.classes)
    return transformer(sizes.vocabulary, sizes.context, sizes.layers, sizes.width, sizes.heads)


def flops(payload: MlTrainingPayload) -> float:
    """Floating-point operations of all products of one step, counted by PyTorch from shapes alone."""
    from torch import device, empty, int64, zeros
    from torch.utils.flop_counter import FlopCounterMode

    sizes = payload.sizes
    with device("meta"), FlopCounterMode(display=False) as counter:
        inputs = {
            "mlp": lambda: empty(1, sizes.features),
            "resnet50": lambda: empty(1, 3, sizes.image_size, sizes.image_size),
            "transformer": lambda: zeros(1, sizes.context, dtype=int64),
        }[payload.model]()
        # In eval mode: batch normalisation rejects a single pixel in training mode, and is not a product.
        build(payload).eval()(inputs).sum().backward()
    return float(counter.get_total_flops()) * sizes.batch


def mlp(features: int, width: int, layers: int, classes: int) -> nn.Module:
    """(samples, features) -> (samples, classes), with `layers` hidden layers of `width`."""
    from torch import nn

    parts: list[nn.Module] = []
    for wide in [features] + [width] * (layers - 1):
        parts += [nn.Linear(wide, width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(width, classes))


def resnet50(classes: int = 1000) -> nn.Module:
    """(images, 3, height, width) -> (images, classes): version 1.5, with the stride in the 3 x 3 convolution."""
    from torch import nn

    class ResNet(nn.Module):
        layer1: nn.Module
        layer2: nn.Module
        layer3: nn.Module
        layer4: nn.Module

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
            self.bn1, self.relu = nn.BatchNorm2d(64), nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
            wide = 64
            for number, (planes, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], 1):
                stage = []
                for index in range(blocks):
                    stage.append(_bottleneck(wide, planes, 2 if number > 1 and index == 0 else 1))
                    wide = 4 * planes
                self.add_module(f"layer{number}", nn.Sequential(*stage))
            self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(wide, classes)
            for part in self.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
                elif isinstance(last := getattr(part, "bn3", None), nn.BatchNorm2d):
                    # Each block starts as its shortcut alone, which makes training start several times as fast.
                    nn.init.zeros_(last.weight)

        def forward(self, images: Tensor) -> Tensor:
            found = self.maxpool(self.relu(self.bn1(self.conv1(images))))
            found = self.layer4(self.layer3(self.layer2(self.layer1(found))))
            return self.fc(self.avgpool(found).flatten(1))

    return ResNet()


def _bottleneck(wide: int, planes: int, stride: int) -> nn.Module:
    """Convolutions 1 x 1, 3 x 3, 1 x 1, and a shortcut, which is projected when the shape changes."""
    from torch import nn

    class Bottleneck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(wide, planes, 1, bias=False), nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.conv3, self.bn3 = nn.Conv2d(planes, 4 * planes, 1, bias=False), nn.BatchNorm2d(4 * planes)
            self.relu = nn.ReLU(inplace=True)
            self.downsample: nn.Module | None = None
            if stride > 1 or wide != 4 * planes:
                projection = nn.Conv2d(wide, 4 * planes, 1, stride=stride, bias=False)
                self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * planes))

        def forward(self, given: Tensor) -> Tensor:
            found = self.relu(self.bn1(self.conv1(given)))
            found = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(found)))))
            return self.relu(found + (given if self.downsample is None else self.downsample(given)))

    return Bottleneck()


def transformer(vocabulary: int, context: int, layers: int, width: int, heads: int) -> nn.Module:
    """(sequences, tokens) -> (sequences, tokens, vocabulary): GPT-2 without dropout, as it is pre-trained today."""
    from torch import arange, nn

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
            self.h = nn.ModuleList(_block(width, heads) for _ in range(layers))
            self.ln_f = nn.LayerNorm(width)
            for name, part in self.named_modules():
                if isinstance(part, (nn.Linear, nn.Embedding)):
                    last = name.endswith("c_proj")
                    nn.init.normal_(part.weight, std=0.02 / (2 * layers) ** 0.5 if last else 0.02)
                if isinstance(part, nn.Linear):
                    nn.init.zeros_(part.bias)

        def forward(self, tokens: Tensor) -> Tensor:
            found = self.wte(tokens) + self.wpe(arange(tokens.shape[1], device=tokens.device))
            for block in self.h:
                found = block(found)
            # The output layer shares the weights of the embedding.
            return nn.functional.linear(self.ln_f(found), self.wte.weight)

    return Gpt()


def _block(width: int, heads: int) -> nn.Module:
    from torch import nn

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, given: Tensor) -> Tensor:
            many, length, _ = given.shape
            parts = self.c_attn(given).view(many, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            found = nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
            return self.c_proj(found.transpose(1, 2).reshape(many, length, width))

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.act = nn.GELU(approximate="tanh")

        def forward(self, given: Tensor) -> Tensor:
            return self.c_proj(self.act(self.c_fc(given)))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.attn = nn.LayerNorm(width), Attention()
            self.ln_2, self.mlp = nn.LayerNorm(width), Mlp()

        def forward(self, given: Tensor) -> Tensor:
            found = given + self.attn(self.ln_1(given))
            return found + self.mlp(self.ln_2(found))

    return Block()
