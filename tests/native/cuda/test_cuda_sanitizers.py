"""The sanitizers over the kernels, and faults put into them: each must be found, and the table says by what."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from fixtures.emulation import KERNELS, VARIANTS, Emulator, Group, Problem, Run, compile_program, wrong_elements

pytestmark = [pytest.mark.native, pytest.mark.slow]

# Every kernel for its length of rows, both operators, ragged in every direction. On one processor a block walks over
# several tiles; on more the tiles are shared out. In the groups blocks go on from one problem, clip or pair to another.
GROUPS = [
    Group("fp16", ((4, 140, 140, 56, 2), (2, 40, 40, 64, 2), (1, 33, 150, 64, 0)), sm_count=3),
    Group("fp32", ((2, 131, 131, 24, 1), (1, 30, 70, 8, 0)), sm_count=1),
]
SANITIZED: list[Problem | Group] = [
    Problem("fp32", 1, 130, 140, 40, sm_count=1),
    Problem("tf32", 1, 140, 100, 64, sm_count=1),
    Problem("tf32", 1, 131, 140, 136, sm_count=1),
    Problem("fp16", 1, 150, 135, 128, sm_count=1),
    Problem("bf16", 1, 40, 210, 136, sm_count=1),
    *GROUPS,
    Problem("fp16", 1, 140, 100, 32, sm_count=1),
    Problem("tf32", 1, 140, 70, 32, sm_count=1),
    Problem("fp16", 2, 129, 65, 120),
    Problem("fp16", 1, 1, 1, 8),
    Problem("fp16", 0, 1, 1, 8),
    Problem("bf16", 1, 49, 49, 128, "volume"),
    Problem("fp32", 1, 30, 67, 72, "volume", flag=False),
]
PROBES = SANITIZED[:7]
SITE = re.compile(r"__syncthreads\(\);|AVSBG_COPY_WAIT\([^)]*\);|ptx::wait_for_previous_kernel\(\);")


@pytest.mark.parametrize("problem", SANITIZED, ids=str)
def test_address_and_undefined_behaviour(emulator_asan: Emulator, problem: Problem | Group) -> None:
    emulator_asan.check(problem)


@pytest.mark.parametrize("problem", SANITIZED, ids=str)
def test_races(emulator_tsan: Emulator, problem: Problem | Group) -> None:
    emulator_tsan.check(problem, EMULATION_ORDER="interleaved")


@pytest.mark.parametrize("problem", [p for p in SANITIZED if p.dtype in {"fp16", "fp32"}], ids=str)
def test_races_on_sm_75(emulator_tsan_sm_75: Emulator, problem: Problem | Group) -> None:
    emulator_tsan_sm_75.check(problem)


def verdicts(emulator: Emulator, **environment: str) -> set[str]:
    """The checks that find fault with the program, over the problems that probe it."""
    found = set()
    for probe in PROBES:
        found |= reasons(*emulator.attempt(probe, **environment))
    # The last rows of maps that end inside a tile, multiplied with padding, must not make NaN of it.
    problem = Problem("fp16", 2, 130, 70, 128)
    a, b = problem.inputs()
    a[0, 5, 0] = b[0, 69, 0] = float("inf")
    a[1, 6, 0] = float("nan")
    run = emulator.solve(problem, a, b, **environment)
    return found | reasons(run, wrong_elements(problem, a, b, run))


def reasons(run: Run, wrong: int) -> set[str]:
    found = set()
    if "ThreadSanitizer: data race" in run.stderr:
        found.add("race")
    if "emulation: block" in run.stderr:
        found.add("rule of the device")
    elif wrong:
        found.add("wrong result")
    if run.line and any(run.conflicts.values()):
        found.add("bank conflict")
    return found


def barriers_and_waits() -> list[str]:
    """Every line of the kernels' source that has a barrier or a wait, as "file:line"."""
    return [
        f"{source.name}:{number}"
        for source in sorted(KERNELS.glob("*.cu*"))
        for number, line in enumerate(source.read_text().splitlines(), 1)
        if SITE.search(line.split("//")[0])
    ]


def test_every_barrier_and_wait_is_reached(emulator: Emulator) -> None:
    """So that leaving one out is a change, and so that none is hidden from the pattern that finds them."""
    reached = set()
    for problem in PROBES:
        reached |= {site.split()[1] for site in emulator.check(problem).line["sites"]}
    assert sorted(reached) == sorted(barriers_and_waits())
    assert len(reached) >= 4


@pytest.mark.parametrize("site", barriers_and_waits())
def test_without_a_barrier_or_wait_the_tests_fail(emulator: Emulator, emulator_tsan: Emulator, site: str) -> None:
    """Each is left out in turn, as if its line were deleted. Results and sanitizer must each tell on their own."""
    plain = verdicts(emulator, EMULATION_SKIP=site)
    sanitizer = verdicts(emulator_tsan, EMULATION_SKIP=site)
    print(f"without {site}: {', '.join(sorted(plain))}; under ThreadSanitizer: {', '.join(sorted(sanitizer))}")
    assert plain & {"wrong result", "rule of the device"}
    assert sanitizer & {"race", "rule of the device"}


# Faults of other kinds: a text of the source, what replaces it, how it is compiled, and what must find it.
FAULTS = {
    "waits for one copy too few": (
        ("AVSBG_COPY_WAIT(kStages - 2)", "AVSBG_COPY_WAIT(kStages - 1)"),
        ("faulty", "rule of the device"),
    ),
    "counts only groups with copies in them": (
        ("    ptx::copy_commit();", "    if (items_ > 0 || more_) ptx::copy_commit();"),
        ("faulty", "rule of the device"),
    ),
    "fills the slot that is being read": (
        ("reader.copy_next(free);", "reader.copy_next(following);"),
        ("faulty tsan", "race"),
    ),
    "has one buffer for the column sums": (("[tile_number % 2]", "[0]"), ("faulty tsan", "race")),
    "adds targets beyond the map": (("target_of(row / 2, e) >= targets", "false"), ("faulty", "wrong result")),
    "adds queries beyond the map": (("query_of(column / 2, e) >= queries", "false"), ("faulty", "wrong result")),
    "reads beyond the channels": (("unit < units ? rows - row : 0", "rows - row"), ("faulty", "wrong result")),
    "drops NaN in the ReLU": (("x < 0.0F ? 0.0F : x", "x > 0.0F ? x : 0.0F"), ("faulty", "wrong result")),
    "does not round to tf32": (("return round_to_tf32(bits)", "return bits"), ("faulty", "wrong result")),
    "takes the frames of a clip one after the other": (
        ("stretch.pair + stretch.pair / task.pairs_per_clip", "stretch.pair"),
        ("faulty", "wrong result"),
    ),
    "begins a problem one tile late": (
        ("tile >= args.tasks[number + 1].first_tile", "tile > args.tasks[number + 1].first_tile"),
        ("faulty", "wrong result"),
    ),
    "goes on beyond a block's own tiles": (
        ("left < task.target_tiles - first ?", "false ?"),
        ("faulty", "wrong result"),
    ),
    "keeps both ends of a block's tiles in one place": (
        ("return 2 * worker + begins;", "return 2 * worker;"),
        ("faulty", "wrong result"),
    ),
    "combines the rows of one block too few": (("worker <= ends", "worker < ends"), ("faulty", "wrong result")),
    "combines the columns of one query tile too few": (
        ("i < task.query_tiles", "i + 1 < task.query_tiles"),
        ("faulty", "wrong result"),
    ),
    "leaves units in their order": (
        ("(unit ^ (kUnits == 4 ? (row >> 1) & 3 : row & 7))", "unit"),
        ("faulty", "bank conflict"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(tmp_path: Path, fault: str) -> None:
    (text, replacement), (name, finder) = FAULTS[fault]
    folder = shutil.copytree(KERNELS, tmp_path / "cuda")
    changed = 0
    for source in folder.glob("*.cu*"):
        before = source.read_text()
        source.write_text(before.replace(text, replacement))
        changed += before.count(text)
    assert changed > 0, f"the kernels no longer say {text!r}: choose another text for this fault"
    found = verdicts(Emulator(compile_program(VARIANTS[name], folder)))
    print(f"{fault}: {', '.join(sorted(found)) or 'not found'}")
    assert finder in found
