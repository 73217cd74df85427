"""Program -> arena offsets: lifetimes, memory taken over in place, placement, and the proof that nothing overlaps."""

from toolchain.plan.check import check
from toolchain.plan.planner import plan

__all__ = ["check", "plan"]
