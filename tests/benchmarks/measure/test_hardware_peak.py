"""The processor's peak: what is measured follows what it computes in."""

from __future__ import annotations

import pytest

from avsbg.benchmarks.machine import environment
from avsbg.benchmarks.measure import hardware_peak


@pytest.mark.parametrize(
    ("flags", "precisions"),
    [
        (["avx2"], {"fp32"}),
        (["avx2", "avx_vnni"], {"fp32", "int8"}),
        (["avx512_bf16", "avx512_vnni"], {"fp32", "bf16", "int8"}),
    ],
)
def test_a_precision_has_a_peak_where_the_processor_computes_in_it(monkeypatch, flags, precisions):
    monkeypatch.setattr(environment, "processor_flags", lambda: flags)
    monkeypatch.setattr(hardware_peak, "_SIZE", 64)
    found = hardware_peak.measure_matrix_rates(1)
    assert set(found) == precisions
    assert all(rate > 0 for rate in found.values())


def test_the_faster_library_is_the_peak(monkeypatch):
    monkeypatch.setattr(environment, "processor_flags", list)
    seconds = iter([4.0, 2.0])
    monkeypatch.setattr(hardware_peak, "_best", lambda _: next(seconds))
    assert hardware_peak.measure_matrix_rates(1) == {"fp32": hardware_peak._FLOP / 2.0}
