"""Results of a collection: the table where the work breaks off, and answers of a cluster's workers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from avsbg.runtime.cluster import engines
from avsbg.runtime.cluster.collection import CollectionItem
from avsbg.runtime.cluster.engines import ClusterOptions, run_ray
from avsbg.runtime.cluster.worker import CollectionResult, Job
from avsbg.runtime.errors import OutputError
from avsbg.runtime.segment.pipeline import Options
from fixtures.environments import run_there

# In the environment that has pyarrow: a complete collection, one that breaks off after so many, twice, and another.
COLLECT = """
import json, sys
from avsbg.runtime.cluster.engines import collect, read_results
from avsbg.runtime.cluster.worker import CollectionResult
output = sys.argv[1]
def results(names, state, error=None):
    yield from (CollectionResult(name, f"{output}/{name}", state) for name in names)
    if error is not None:
        raise error
def told():
    return {result.source: result.state for result in read_results(output)}
assert read_results(output) == []
collect(results("abc", "done"), output, lambda _: None)
seen = [told()]
for names, error in (("", KeyboardInterrupt("first")), ("b", KeyboardInterrupt("second"))):
    try:
        collect(results(names, "finished before", error), output, lambda _: None)
    except KeyboardInterrupt as raised:
        seen += [str(raised), told()]
found = collect(results("cd", "failed"), output, lambda _: None)
seen += ["".join(result.source for result in found), told()]
print(json.dumps(seen))
"""

# In the same: collections whose table cannot be written, or would replace another's; work is noted.
REFUSE = """
import json, sys
import pyarrow
from pyarrow import parquet
from avsbg.errors import AvsbgError
from avsbg.runtime.cluster.engines import collect
folder = sys.argv[1]
open(f"{folder}/file", "w").close()
parquet.write_table(pyarrow.table({"video": ["mine"]}), f"{folder}/results.parquet")
told = []
def results():
    told.append("begun")
    yield
for scheme in ("", "file://"):
    for output in (f"{folder}/file", folder):
        try:
            collect(results(), f"{scheme}{output}", lambda _: None)
        except AvsbgError as error:
            told.append(str(error))
assert parquet.read_table(f"{folder}/results.parquet").to_pydict() == {"video": ["mine"]}
print(json.dumps(told))
"""


def test_a_table_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    done = run_there("services", "-c", REFUSE, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert len(told) == 4
    for place, error in zip(["file/results.parquet", "results.parquet"] * 2, told, strict=True):
        assert f"{tmp_path}/{place} cannot be " in error


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_table_keeps_what_was_not_reached(tmp_path: Path, scheme: str) -> None:
    done = run_there("services", "-c", COLLECT, f"{scheme}{tmp_path}")
    assert done.returncode == 0, done.stderr[-3000:]
    complete = dict.fromkeys("abc", "done")
    broken_off = {**complete, "b": "finished before"}
    assert json.loads(done.stdout) == [
        *(complete, "first", complete, "second", broken_off),
        *("cd", {**broken_off, "c": "failed", "d": "failed"}),
    ]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that is this process: Ray's functions that are called, without a machine of its own."""

    class Rows(list):
        def map_batches(self, actor: type, *, fn_constructor_args: tuple, **_: object) -> SimpleNamespace:
            work = actor(*fn_constructor_args)
            batches = [work({key: [value] for key, value in row.items()}) for row in self]
            rows = [{key: values[0] for key, values in batch.items()} for batch in batches]
            return SimpleNamespace(iter_rows=lambda: rows)

    data = SimpleNamespace(
        DataContext=SimpleNamespace(get_current=SimpleNamespace),
        from_items=lambda rows, **_: Rows(rows),
        ActorPoolStrategy=lambda **_: None,
    )
    played = SimpleNamespace(data=data, is_initialized=lambda: True, shutdown=lambda: None, cluster_resources=dict)
    monkeypatch.setitem(sys.modules, "ray", played)


def test_a_full_disk_of_a_cluster_is_told_and_a_source_may_come_twice(
    ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def worker(_: Job) -> Iterator[object]:
        def work(item: CollectionItem) -> CollectionResult:
            if item.name == "b.mp4":
                raise OutputError("the output /out/b.mp4 cannot be written: No space left on device.")
            return CollectionResult(item.source, f"/out/{item.name}", "done")

        yield work

    monkeypatch.setattr(engines, "CollectionWorker", worker)
    items = [CollectionItem("/v/a.mp4", "a.mp4"), CollectionItem("/v/a.mp4", "v/a.mp4")]
    items += [CollectionItem("/v/b.mp4", "b.mp4")]
    job = Job(nullcontext, Options(), "/out")  # type: ignore[arg-type]
    results = {result.output: result for result in run_ray(job, items, ClusterOptions())}
    assert {output: result.state for output, result in results.items()} == {
        "/out/a.mp4": "done",
        "/out/v/a.mp4": "done",
        "/out/b.mp4": "failed",
    }
    assert results["/out/b.mp4"].error == "the output /out/b.mp4 cannot be written: No space left on device."
