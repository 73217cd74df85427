"""The geometry of report.html's pictures of quantization: bars and histograms in their own units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BAR_WIDTH, BAR_HEIGHT, BAR_LABEL = 960, 14, 330
FULL = 80.0
"""Decibels that fill the width of a bar."""
PLOT_WIDTH, PLOT_HEIGHT = 220, 60
RATIOS = (("weights_db", "weights", 30), ("activation_db", "activation", 200), ("accumulated_db", "accumulated", 130))


def noise_bars(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One group per layer with a bar per ratio it has: {name, y, bars: [{y, width, hue, label}]}."""
    groups, y = [], 0
    for row in layers:
        bars = []
        for key, label, hue in RATIOS:
            if row[key] is not None:
                width = (BAR_WIDTH - BAR_LABEL) * min(max(row[key], 0.0), FULL) / FULL
                text = f"{label} {row[key]:.1f} dB"
                bars.append({"y": y, "width": round(width, 2), "hue": hue, "label": f"{row['origin']}: {text}"})
                y += BAR_HEIGHT
        groups.append({"name": row["origin"][-44:], "y": (bars[0]["y"] if bars else y) + BAR_HEIGHT - 3, "bars": bars})
        y += BAR_HEIGHT // 2
    return groups


def bars_height(groups: Sequence[Mapping[str, Any]]) -> int:
    """The height that all groups take."""
    return max((bar["y"] for group in groups for bar in group["bars"]), default=0) + 2 * BAR_HEIGHT


def histogram_path(histogram: Mapping[str, Any]) -> str:
    """The outline of a histogram as an SVG path, counts under a square root so that tails are seen."""
    counts = histogram["counts"]
    most, step = max([*counts, 1]) ** 0.5, PLOT_WIDTH / len(counts)
    parts = [f"M0 {PLOT_HEIGHT}"]
    for place, count in enumerate(counts):
        top = round(PLOT_HEIGHT * (1 - count**0.5 / most), 2)
        parts.append(f"L{round(place * step, 2)} {top} L{round((place + 1) * step, 2)} {top}")
    return " ".join([*parts, f"L{PLOT_WIDTH} {PLOT_HEIGHT} Z"])


def range_marks(row: Mapping[str, Any]) -> list[float]:
    """Where the ends of the integer range lie in the histogram of values, as far as they lie in it."""
    low, high = row["values"]["low"], row["values"]["high"]
    if row["range"] is None or high <= low:
        return []
    places = [PLOT_WIDTH * (end - low) / (high - low) for end in row["range"]]
    return [round(place, 2) for place in places if 0 <= place <= PLOT_WIDTH]
