"""Rows of a benchmark, made up."""

from __future__ import annotations

from typing import Any

from avsbg.benchmarks.results.rows import Row


def make_row(label: str = "avs-bg:torch:published", *, median: float = 1.0, **changes: Any) -> Row:
    """A stable row of AVS-BG on PyTorch, the reference of its own run unless `changes` says otherwise."""
    samples = [median * factor for factor in (0.99, 1.0, 1.0, 1.01)] * 5
    document: dict[str, Any] = {
        "label": label,
        "bundle": {
            "name": "avs-bg",
            "manifest_sha256": "0" * 64,
            "onnx_sha256": {"clip.onnx": "1" * 64},
            "weights": {"seed": 0, "checkpoints": []},
        },
        "variant": {
            "network": "avs-bg",
            "encoder": "pvt_v2_b5",
            "audio": True,
            "motion": True,
            "bidirectional": True,
            "form": "published",
        },
        "backend": {"backend": "torch", "operator": "published", "threads": 2},
        "workload": {
            "scope": "model",
            "clips": 1,
            "frames": 5,
            "height": 224,
            "width": 224,
            "audio": "audio_embedding",
        },
        "parameters": {"published": 85_499_515, "inference": 82_000_000},
        "flops": {"total": 188_600_000_000, "parts": {"encoder": 188_600_000_000}},
        "latency": {
            "samples": samples,
            "per_clip": {
                "n": len(samples),
                "minimum": min(samples),
                "p50": median,
                "p90": median * 1.01,
                "p95": median * 1.01,
                "p99": median * 1.01,
                "mean": median,
                "variation": 0.007,
            },
            "drift": 0.0,
        },
        "ratio": {
            "reference": "avs-bg:torch:published",
            "median": median,
            "low": 0.99,
            "high": 1.01,
            "confidence": 0.95,
        },
        "memory": {
            "imported": 100 * 2**20,
            "loaded": 600 * 2**20,
            "load_peak": 700 * 2**20,
            "peak": 1586 * 2**20,
            "runs": 3,
            "source": "made up",
        },
        "logit_difference": 1e-6,
        "problems": (),
        "limits": {"samples": 10, "variation": 0.1, "drift": 0.05, "others": 0.1, "logit_difference": 1e-3},
        "run": {
            "started": "2026-01-02T03:04:05Z",
            "command": ("avsbg", "bench", "avs-bg"),
            "contenders": ("avs-bg:torch:published", "avs-bg:onnxruntime:native"),
            "reference": "avs-bg:torch:published",
            "warmup": 3,
            "pause": 0.05,
            "others": 0.01,
        },
        "environment": {
            "avsbg": "0.1.0",
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "python": "3.11.2",
            "system": "Linux",
            "processor": "Imaginary CPU",
            "flags": ("avx2",),
            "cores": {"physical": 2, "logical": 2, "usable": 2},
            "governor": None,
            "memory": 2**34,
            "load_average": (0.1, 0.1, 0.1),
            "packages": {"torch": "2.14.1", "onnxruntime": "1.32.0"},
            "variables": {},
        },
    }
    return Row.model_validate(document | changes)


def make_second_row(**changes: Any) -> Row:
    """The same network on ONNX Runtime in the same run, twice as fast."""
    return make_row(
        "avs-bg:onnxruntime:native",
        median=0.5,
        **{
            "backend": {"backend": "onnxruntime", "operator": "native", "threads": 2},
            "variant": make_row().variant | {"form": "efficient"},
            **changes,
        },
    )
