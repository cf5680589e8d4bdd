"""What each precision costs in accuracy: `python -m avsbg.benchmarks.measure.precision BUNDLE ... -o precision.jsonl`.

Each precision of each bundle is run on the processor on the bundle's test vectors (and, if asked for, on a split of a
data set), bf16 and tf32 emulated, and its logits and masks are held against PyTorch's in float32. Precisions that a
bundle has no graph in yet are made in a copy of it, which is thrown away.

    python -m avsbg.benchmarks.measure.precision BUNDLE -o benchmarks/results/precision.jsonl --append
    python -m avsbg.benchmarks.measure.precision BUNDLE -o ... --append --dataset D --task ms3 --calibrate D:ms3:val
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.measure.cases import GRAPH
from avsbg.benchmarks.measure.precision_measure import Progress, ScoredSplit, measure
from avsbg.benchmarks.results.schema import Measurement, read_rows, write_rows
from avsbg.errors import AvsbgError
from avsbg.model.training.layout import Split, Task
from avsbg.runtime.bundle import Bundle
from avsbg.runtime.bundle.precision import PRECISIONS
from avsbg.runtime.bundle.record_types import Precision

# At most, where a bundle was not calibrated.
CALIBRATION_CLIPS = 16


@contextmanager
def with_precisions(
    bundle: Bundle, precisions: Sequence[Precision], calibrate: str, progress: Progress
) -> Iterator[Bundle]:
    """Yield the bundle, or a throw-away copy of it that has a graph in each of the precisions.

    Args:
        bundle: an open bundle, which is not changed.
        precisions: those wanted.
        calibrate: what int8 and fp8 are calibrated on where they were not (`avsbg convert --calibrate`).
        progress: called with what is being done, the steps done and the steps there are.
    """
    from avsbg.export.external_data import check_external_data
    from avsbg.export.precision.calibrate import ClipSource, open_clips
    from avsbg.export.precision.graphs import add_graph
    from avsbg.export.precision.sensitivity import calibrate_bundle
    from avsbg.runtime.bundle import update_bundle

    graphs = bundle.manifest.graphs
    missing = [one for one in precisions if PRECISIONS[one].is_converted and f"{GRAPH}.{one}" not in graphs]
    if not missing:
        yield bundle
        return
    check_external_data(bundle, bundle.graph(GRAPH))
    with tempfile.TemporaryDirectory(prefix="avsbg-") as folder:
        copy = Bundle.open(Path(shutil.copytree(bundle.path, Path(folder) / "bundle")))
        with update_bundle(copy) as update:
            for done, one in enumerate(missing):
                progress(f"expressing the graph in {one}", done, len(missing))
                if PRECISIONS[one].quantization is not None and one not in bundle.manifest.quantisations:
                    clips = open_clips(ClipSource(calibrate, CALIBRATION_CLIPS), copy)
                    min_miou = PRECISIONS[one].min_miou
                    update.quantisations[one] = calibrate_bundle(copy, one, clips, min_miou, progress)
                add_graph(update, GRAPH, one)
        yield Bundle.open(copy.path)


def merge(old: Sequence[Measurement], new: Sequence[Measurement]) -> list[Measurement]:
    """Old rows but for those whose network, weights, precision and clips are a new one's, and then the new ones."""

    def key(row: Measurement) -> tuple[str, ...]:
        data = row.case["data"]
        return row.ran.network, str(row.ran.weights), row.case["precision"], data["kind"], data["name"]

    renewed = {key(row) for row in new}
    return [*(row for row in old if key(row) not in renewed), *new]


def main(  # noqa: PLR0917  (each is an option by name)
    bundles: Annotated[list[Path], typer.Argument(help="Bundles; they are not changed.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the rows go, as JSON lines.")],
    append: Annotated[
        bool, typer.Option("--append", help="Keep the rows in FILE, but for those that are measured again.")
    ] = False,
    precision: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(PRECISIONS)}; may be repeated. By default all.")
    ] = None,
    calibrate: Annotated[
        str, typer.Option(metavar="FOLDER", help="For int8 and fp8 where a bundle has none: as `avsbg convert`.")
    ] = "vectors",
    dataset: Annotated[
        Path | None, typer.Option(metavar="ROOT", help="Also a data set: the folder of AVSBench, or in its layout.")
    ] = None,
    task: Annotated[Task, typer.Option(help="Of the data set: one sounding object, or several.")] = "ms3",
    split: Annotated[Split, typer.Option(help="Of the data set.")] = "test",
    threads: Annotated[int, typer.Option(min=1, help="Of the runtime.")] = 1,
) -> None:
    """Measure what each precision costs, write rows, print them as the table of docs/precision.md."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    wanted = _precisions(precision)
    old = read_rows(output, "precision") if append and output.exists() else []
    opened = [Bundle.open(path) for path in bundles]
    data = None
    if dataset is not None:
        from avsbg.model.training.data import AvsBenchDataset

        data = AvsBenchDataset(dataset, task, split)
    new: list[Measurement] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("", total=None)
        for bundle in opened:

            def progress(what: str, done: int, total: int, name: str = bundle.manifest.name) -> None:
                bar.update(shown, description=f"{name}: {what}", completed=done, total=total)

            with with_precisions(bundle, wanted, calibrate, progress) as made, tempfile.TemporaryDirectory() as folder:
                sources: list[ScoredSplit | None] = [None] if bundle.manifest.vectors else []
                if data is not None:
                    sources.append(ScoredSplit.open(bundle, data, Path(folder), progress, threads))
                for source in sources:
                    for one in wanted:
                        new.append(measure(bundle, made, one, source, progress, threads=threads))
                        # What is done is kept when a later one fails or is interrupted.
                        write_rows(output, merge(old, new))
    typer.echo(f"{output}: {len(new)} new rows; `python -m avsbg.benchmarks table precision {output}` shows all")


def _precisions(names: list[str] | None) -> tuple[Precision, ...]:
    if unknown := [name for name in names or () if name not in PRECISIONS]:
        raise BenchmarkError(f"--precision {unknown[0]} does not exist.", f"Choose: {', '.join(PRECISIONS)}.")
    return tuple(one for one in PRECISIONS if names is None or one in names)


if __name__ == "__main__":
    try:
        typer.run(main)
    except AvsbgError as error:
        sys.exit(f"error: {error}")
