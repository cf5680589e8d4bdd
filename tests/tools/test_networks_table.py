"""The table of networks: measured rows, engines and published scores beside each other; what is not there is a dash."""

from __future__ import annotations

from avsbg.benchmarks.measure.networks import add_engine_rows, list_systems, write_latency_rows
from avsbg.benchmarks.results.schema import Measurement, Metric, Ran, read_rows
from avsbg.model import NETWORKS
from fixtures.rows import VARIANT, make_row
from tools.networks import measured_table, short_table

LVS = VARIANT | {"network": "lvs", "encoder": "resnet18", "motion": False, "bidirectional": False}


def engine(network: str, variant: dict[str, str | bool], *problems: str) -> Measurement:
    case = {"engine": "e", "graph": "clip", "clips": 1, "precision": "fp32", "operator": "plain"}
    sizes = {"engine_bytes": 1e6, "activation_memory": 42e6}
    metrics = {"layers": Metric(value=7), **{name: Metric(unit="B", value=size) for name, size in sizes.items()}}
    kind = "engine-failure" if problems else "engine"
    ran = Ran(network=network, variant=variant)
    return Measurement(kind=kind, case=case, metrics={} if problems else metrics, problems=problems, ran=ran)


def test_every_published_encoder_is_a_system_and_avs_bgs_default_is_the_reference() -> None:
    names = [system.name for system in list_systems()]
    assert names[0] == "avs-bg-pvt-v2-b5" and len(names) == len(set(names))
    assert {"avs-bg-resnet50", "avsbench-pvt-v2-b5", "avsegformer-resnet50", "lvs", "3dc", "igan", "lgvt"} < set(names)
    assert [system.name for system in list_systems(["lvs"])] == ["avs-bg-pvt-v2-b5", "lvs"]
    assert {system.variant.network for system in list_systems()} == {
        name for name, record in NETWORKS.items() if record.module is not None
    }


def test_rows_engines_and_scores_stand_in_one_line() -> None:
    reference = make_row(metrics={"published_operations": Metric(unit="FLOP", value=190e9)})
    lvs = make_row("lvs", median=0.2, network="lvs-resnet18", variant=LVS)
    rows = [reference, lvs, engine("avs-bg", VARIANT), engine("lvs-resnet18", LVS, "no kernel")]
    text = measured_table(rows, "rows.jsonl")
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("|")}
    assert "| 190.0 / 188.6 | 1 | 1000.0 / 1010.0 | 1586 | yes | 7 (fp32) | 42 (fp32) |" in lines["AVS-BG, PVT-v2-b5"]
    assert "| 0.200 [0.200, 0.200] |" in lines["LVS"] and "| fails (fp32) | fails (fp32) |" in lines["LVS"]
    assert "37.94 / 0.510 | 29.45 / 0.330 |" in lines["LVS"] and "* lvs-resnet18 in fp32: no kernel" in text
    assert "| - | - | - |" in lines["SST, never released"] and "66.29 / 0.801" in lines["SST, never released"]
    assert "MSSL" not in lines  # not part of this run
    assert "| LVS | SSL | 82.0 | 189 | 0.200 [0.200, 0.200] | 1586 | yes | 37.94 / 0.510 |" in short_table(rows)


def test_without_a_run_there_are_engines_and_scores_alone() -> None:
    rows = [engine("lvs-resnet18", LVS)]
    text = measured_table(rows, "rows.jsonl")
    assert "not measured yet" in text and "| LVS | SSL | - | - | - | - | - | yes | 7 (fp32) |" in text
    assert "| iGAN | SOD | - | - | - | - | yes |" in short_table(rows)


def test_runs_and_engines_share_a_file(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    write_latency_rows(path, [make_row()])
    add_engine_rows(path, [engine("avs-bg", VARIANT), engine("lvs-resnet18", LVS, "no kernel")])
    add_engine_rows(path, [engine("lvs-resnet18", LVS)])
    write_latency_rows(path, [make_row(), make_row("another")])
    found = [(row.kind, row.ran.network) for row in read_rows(path)]
    assert found == [("latency", "avs-bg"), ("latency", "avs-bg"), ("engine", "avs-bg"), ("engine", "lvs-resnet18")]
