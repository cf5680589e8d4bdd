"""The networks as docs/networks.md lists them, from their records."""

from __future__ import annotations

from collections.abc import Callable

from avsbg.benchmarks.report.labels import encoder_title
from avsbg.benchmarks.report.tables import markdown
from avsbg.model import NETWORKS, NetworkRecord


def network_table() -> str:
    """The networks, what they take, whether they stream, and their published scores."""
    columns: list[tuple[str, Callable[[NetworkRecord], str]]] = [
        ("network", lambda record: record.title + (f", `{record.name}`" if record.module else ", never released")),
        ("task", lambda record: record.task),
        ("encoder", lambda record: ", ".join(encoder_title(name) for name in _encoders(record)) or "-"),
        ("sound", _sound),
        ("streams", lambda record: "-" if record.module is None else "no" if record.mixes_frames else "yes"),
        ("S4: mIoU / F-score", lambda record: _scores(record, "s4")),
        ("MS3: mIoU / F-score", lambda record: _scores(record, "ms3")),
    ]
    return markdown(NETWORKS.values(), columns)


def _encoders(record: NetworkRecord) -> tuple[str, ...]:
    """Those that scores were published with, in their order, or the only one."""
    scored = tuple(dict.fromkeys(encoder for encoder, _ in record.scores if encoder))
    return scored or record.encoders


def _sound(record: NetworkRecord) -> str:
    if record.module is None:
        return "-"
    return "spectrogram" if record.spectrogram else "embeddings" if record.takes_embeddings else "none"


def _scores(record: NetworkRecord, task: str) -> str:
    found = (score for (_, of), score in record.scores.items() if of == task)
    return ", ".join(f"{score.miou:.2f} / {score.f_score:.3f}" for score in found)
