"""What the merges of an export save, from the committed counts, as the table of docs/export.md."""

from __future__ import annotations

from pathlib import Path

from avsbg.benchmarks.static.counts import merge_key, read_counts

NETWORK = "avs-bg"
FRAMES = 5
# What is merged, for people, and the network's operations in one merge each.
MERGES: dict[str, tuple[tuple[str, ...], ...]] = {
    "`head.0` on the enlarged map of `decoder.3`": (("network.decoder.3/Resize", "network.head.0/Conv"),),
    "`head.2` on the map that `head.1` enlarges, and `head.4`": (
        ("network.head.1/Resize", "network.head.2/Conv", "network.head.3/Relu", "network.head.4/Conv"),
    ),
    "`conv2` and `conv3` of the four `fusion` gates": tuple(
        (f"network.fusion.{stage}.conv2/Conv", f"network.fusion.{stage}.conv3/Conv") for stage in range(4)
    ),
}


def render(path: Path) -> str:
    """Operations of a clip before and after, by what is merged, and of the whole network."""
    counts = read_counts(path)
    total = counts["networks"][f"{NETWORK}, efficient, operations"]
    lines = ["| merged | GFLOP per clip | merged | of the network |", "|---|---|---|---|"]
    all_before = all_after = 0
    for title, merges in MERGES.items():
        keys = [merge_key(f"{NETWORK}-b0", nodes) for nodes in merges]
        before = FRAMES * sum(counts["graphs"][f"{key}, before"] for key in keys)
        after = FRAMES * sum(counts["graphs"][f"{key}, merged"] for key in keys)
        lines.append(_line(title, before, after, (before - after) / total))
        all_before, all_after = all_before + before, all_after + after
    saved = all_before - all_after
    lines.append(_line("AVS-BG, PVT-v2-b5", total, total - saved, saved / total))
    return "\n".join(lines)


def _line(title: str, before: int, after: int, share: float) -> str:
    return f"| {title} | {before / 1e9:.2f} | {after / 1e9:.2f} | -{share:.1%} |"
