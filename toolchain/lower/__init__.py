"""Graph -> Program: kernels each once, steps in order, constants shared."""

from toolchain.lower.lowering import lower
from toolchain.lower.program import Buffer, MemoryPlan, PortSpec, Program, Step

__all__ = ["Buffer", "MemoryPlan", "PortSpec", "Program", "Step", "lower"]
