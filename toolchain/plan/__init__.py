"""Program -> arena offsets: order of the nodes, lifetimes, overlaps, placement, and the proof that nothing is lost."""

from toolchain.plan.check import check
from toolchain.plan.order import arrange
from toolchain.plan.planner import plan

__all__ = ["arrange", "check", "plan"]
