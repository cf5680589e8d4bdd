"""A long source at full speed through `avsbg run`, its memory watched: `python -m avsbg.benchmarks.measure.soak`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field

from avsbg.benchmarks.errors import BenchmarkError
from avsbg.benchmarks.machine.environment import describe_environment
from avsbg.benchmarks.results.rows import EnvironmentRow

RESULTS = Path(__file__).parents[1] / "results" / "soak.json"
SOURCE = "lavfi:testsrc2=rate=10:size=160x120[out0];sine=frequency=440:sample_rate=44100,volume=8[out1]"
EVERY = 1.0


class Soak(BaseModel):
    """One run and its memory."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    environment: EnvironmentRow
    bundle: str
    mode: str = Field(description="clip or stream")
    source: str
    asked: float = Field(description="seconds of video")
    seconds: int = Field(description="that came out")
    dropped: int
    most_waiting: dict[str, int]
    clock: float = Field(description="seconds that it took")
    resident: list[tuple[float, int]] = Field(description="seconds since the start, bytes in memory")

    @property
    def growth(self) -> tuple[int, int]:
        """The most memory in the second tenth of the run, when all is loaded, and in the last tenth."""
        tenth = max(1, len(self.resident) // 10)
        return (
            max(size for _, size in self.resident[tenth : 2 * tenth]),
            max(size for _, size in self.resident[-tenth:]),
        )


def soak(bundle: Path, seconds: float, backend: str) -> Soak:
    """Run `avsbg run` on a generator and watch its memory.

    Raises:
        BenchmarkError: the run failed.
    """
    import psutil

    samples: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        command = [sys.executable, "-c", "from avsbg.cli import main; main()", "run", str(bundle), SOURCE]
        command += ["-o", str(output), "--duration", str(seconds), "--masks", "video", "--rle", "--backend", backend]
        start = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    samples.append((round(time.monotonic() - start, 2), watched.memory_info().rss))
                except psutil.Error:  # it ended between the two
                    break
                time.sleep(EVERY)
            _, errors = process.communicate()
            clock = time.monotonic() - start
        if process.returncode:
            raise BenchmarkError(f"the run failed with exit code {process.returncode}: {errors.strip()[-500:]}")
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return Soak(
        environment=describe_environment(),
        bundle=summary["bundle"]["name"],
        mode=summary["backend"]["mode"],
        source=SOURCE,
        asked=seconds,
        seconds=summary["seconds"],
        dropped=summary["dropped_seconds"],
        most_waiting=summary["most_waiting"],
        clock=round(clock, 2),
        resident=[sample for sample in samples if sample[1]],
    )


def render(path: Path) -> str:
    """The committed run as a sentence."""
    result = Soak.model_validate_json(path.read_text(encoding="utf-8"))
    early, late = (size / 2**20 for size in result.growth)
    return (
        f"A soak of {result.asked / 3600:g} h of video at full speed ({result.bundle}, {result.mode} mode, overlay, "
        f"lossless masks and run lengths): {result.seconds} masks for {result.asked:g} s, {result.dropped} dropped, in "
        f"{result.clock:.0f} s. The most memory in the second tenth of the run was {early:.0f} MiB, in the last tenth "
        f"{late:.0f} MiB."
    )


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle that takes a waveform or log-mel patches.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = RESULTS,
    seconds: Annotated[float, typer.Option(min=60, help="Seconds of video.")] = 3600,
    backend: Annotated[str, typer.Option(help="What executes the network.")] = "onnxruntime",
) -> None:
    """Watch the memory of a long run."""
    from avsbg.atomic import atomic_file

    result = soak(bundle, seconds, backend)
    with atomic_file(output) as path:
        path.write_text(result.model_dump_json() + "\n", encoding="utf-8")
    print(render(output))


if __name__ == "__main__":
    typer.run(main)
