"""Modules in quantization-aware training by torch.ao: their fake quantization with the numbers it has come to."""

from __future__ import annotations

import copy
from typing import Any


def frozen(model: Any) -> Any:
    """The module with fixed scales where it fake-quantizes, in operators that PyTorch's exporter can read.

    The module itself when it does not fake-quantize; else a copy.
    """
    if not any(map(_fake_quantizes, model.modules())):
        return model
    made = copy.deepcopy(model)
    names = [name for name, module in made.named_modules(remove_duplicate=False) if _fake_quantizes(module)]
    for name in names:
        made.set_submodule(name, _fixed(made.get_submodule(name)))
    return made


def _fake_quantizes(module: Any) -> bool:
    """Whether it is torch.ao's FakeQuantize or a kind of it."""
    from torch.ao.quantization import FakeQuantizeBase

    return isinstance(module, FakeQuantizeBase)


def _fixed(module: Any) -> Any:
    """The module that rounds to the grid which `module` has found, or does nothing where that is switched off."""
    import torch
    import torch.ao.quantization.fx._decomposed

    if not int(module.fake_quant_enabled[0]):
        return torch.nn.Identity()
    observer = getattr(module, "activation_post_process", module)
    low, high = int(observer.quant_min), int(observer.quant_max)
    dtype = torch.uint8 if low >= 0 else torch.int8
    grid = module.scale.detach().double(), module.zero_point.detach().long()
    per_channel, axis, full = bool(module.is_per_channel), int(module.ch_axis), torch.iinfo(dtype)
    ops = torch.ops.quantized_decomposed

    class FixedFakeQuantize(torch.nn.Module):  # type: ignore[misc]
        """Limits to the integers in use, then rounds to them."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", grid[0])
            self.register_buffer("zero_point", grid[1])

        def forward(self, x: Any) -> Any:
            if per_channel:
                each = self.scale, self.zero_point, axis, full.min, full.max, dtype
                return ops.dequantize_per_channel(ops.quantize_per_channel(self.limited(x), *each), *each)
            once = float(grid[0]), int(grid[1]), full.min, full.max, dtype
            return ops.dequantize_per_tensor(ops.quantize_per_tensor(self.limited(x), *once), *once)

        def limited(self, x: Any) -> Any:
            """The exporter knows no other limits than those of the type."""
            if (low, high) == (full.min, full.max):
                return x
            if not per_channel:
                return x.clamp((low - int(grid[1])) * float(grid[0]), (high - int(grid[1])) * float(grid[0]))
            shape = [-1 if index == axis else 1 for index in range(x.ndim)]
            edges = [((edge - grid[1]) * grid[0]).float().reshape(shape) for edge in (low, high)]
            return torch.minimum(torch.maximum(x, edges[0]), edges[1])

    return FixedFakeQuantize()
