"""Small PyTorch networks of many shapes, weights and batch-norm statistics random but plausible."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """x + f(x), with a projection where shapes differ and an optional activation after the sum."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut, self.after = body, shortcut or nn.Identity(), after or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.body(x) + self.shortcut(x))


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, activation=nn.ReLU):
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), activation())


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 5 * 5, 60), nn.ReLU(), nn.Linear(60, 10),
    )  # fmt: skip


def inverted_residual(inputs: int, outputs: int, stride: int, expand: int) -> nn.Module:
    hidden = inputs * expand
    body = nn.Sequential(
        block(inputs, hidden, 1, activation=nn.ReLU6),
        block(hidden, hidden, 3, stride, hidden, nn.ReLU6),
        nn.Conv2d(hidden, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )
    return Residual(body) if stride == 1 and inputs == outputs else body


def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        block(3, 8, 3, 2, activation=nn.ReLU6), inverted_residual(8, 8, 1, 3), inverted_residual(8, 12, 2, 4),
        inverted_residual(12, 12, 1, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 7),
    )  # fmt: skip


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 4, 1), nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


def squeeze_excite() -> nn.Module:
    return nn.Sequential(
        block(3, 16, activation=nn.Hardswish), SqueezeExcite(16), block(16, 16, 3, 2, 16, nn.Hardswish),
        SqueezeExcite(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


class CausalConv1d(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.left = 2 * dilation
        self.convolution = nn.Conv1d(inputs, outputs, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(nn.functional.pad(x, (self.left, 0)))


def temporal() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, dilation in ((4, 1), (8, 2), (8, 4)):
        layers += [CausalConv1d(inputs, 8, dilation), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = block(1, 8), block(8, 16)
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.out = nn.Sequential(block(16, 8), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        low = self.middle(nn.functional.max_pool2d(skip, 2))
        return self.out(torch.cat([self.up(low), skip], 1))


class Fire(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, 4, 1), nn.ReLU())
        self.left = nn.Sequential(nn.Conv2d(4, 8, 1), nn.ReLU())
        self.right = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        return torch.cat([self.left(squeezed), self.right(squeezed)], 1)


def squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8),
        nn.MaxPool2d(3, 2, ceil_mode=True), Fire(16), nn.Conv2d(16, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def resnet() -> nn.Module:
    def stage(inputs: int, outputs: int, stride: int) -> nn.Module:
        body = nn.Sequential(
            block(inputs, outputs, 3, stride), nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs)
        )
        shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else None
        return Residual(body, shortcut, nn.ReLU())

    return nn.Sequential(
        block(3, 8), stage(8, 8, 1), stage(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    )


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 16), nn.Tanh())
        self.value, self.policy = nn.Linear(16, 1), nn.Sequential(nn.Linear(16, 5), nn.Softmax(-1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shared = self.body(x)
        return self.value(shared), self.policy(shared)


def depth_multiplier() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.PReLU(6), nn.Conv2d(6, 12, 3, 2, 1, groups=6), nn.PReLU(),
        nn.AvgPool2d(3, 2, 1), nn.Flatten(), nn.Linear(12 * 3 * 3, 4),
    )  # fmt: skip


def smooth_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 16), nn.Softplus(),
        nn.Linear(16, 16), nn.Mish(), nn.Linear(16, 4), nn.LogSoftmax(-1),
    )  # fmt: skip


def grouped_leaky() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 2), groups=2), nn.LeakyReLU(0.1),
        nn.Conv2d(8, 8, 3, dilation=2, padding=2), nn.ELU(), nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(8, 3, 1), nn.Sigmoid(),
    )  # fmt: skip


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(2, 6, stride=2), nn.Conv2d(6, 2, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        up = nn.functional.interpolate(self.first(x), scale_factor=2, mode="bilinear", align_corners=False)
        return self.second(up)


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = block(3, 5), block(8, 4)
        self.norm = nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, self.one(x)], 1)
        x = torch.cat([x, self.two(x)], 1)
        return self.head(torch.relu(self.norm(x)).mean((2, 3)))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (lenet, (1, 28, 28)),
    "mobilenet_v2": (mobilenet_v2, (3, 32, 32)),
    "squeeze_excite": (squeeze_excite, (3, 16, 16)),
    "temporal": (temporal, (4, 33)),
    "unet": (UNet, (1, 16, 16)),
    "squeezenet": (squeezenet, (3, 31, 31)),
    "resnet": (resnet, (3, 16, 16)),
    "two_heads": (TwoHeads, (12,)),
    "depth_multiplier": (depth_multiplier, (3, 11, 11)),
    "smooth_mlp": (smooth_mlp, (10,)),
    "grouped_leaky": (grouped_leaky, (4, 9, 8)),
    "bilinear": (Bilinear, (2, 10, 10)),
    "dense_block": (DenseBlock, (3, 8, 8)),
}
PLAIN = ("lenet", "mobilenet_v2", "squeeze_excite", "temporal", "unet", "squeezenet", "resnet", "depth_multiplier")
"""Convolutional nets that must come out without a single transpose."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    """The net in evaluation mode with randomised batch-norm statistics, and 64 random samples."""
    torch.manual_seed(sum(map(ord, name)))
    make, shape = NETS[name]
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.3, 1.5)
    return model, torch.randn(64, *shape)
