"""The stages that a profile is folded into. Nodes and layers carry the names of the modules that they come from."""

from __future__ import annotations

import re
from collections.abc import Sequence

STAGES = ("front end", "encoder", "neck", "fusion", "correlation", "decoder", "head")

# Module -> stage. TPAVI is AVSBench's fusion; what precedes the network is the front end.
_MODULES = {
    "log_mel": "front end",
    "vggish": "front end",
    "encoder": "encoder",
    "neck": "neck",
    "fusion": "fusion",
    "tpavi": "fusion",
    "correlation": "correlation",
    "decoder": "decoder",
    "head": "head",
}
_MODULE = re.compile(rf"(?:^|[ ./])(?:network\.)?({'|'.join(_MODULES)})(?=[./_ ]|$)")


def module_stage(name: str) -> str | None:
    """The stage of the module that a node's name tells, e.g. `network.decoder.3.conv/Conv`; None if it tells none."""
    found = _MODULE.search(name)
    return _MODULES[found[1]] if found else None


def part_stage(part: str) -> str:
    """The stage of a part of the network as `flops.parts` names it."""
    return _MODULES.get(part, part)


def fold(names: Sequence[str]) -> list[str]:
    """A stage for each of the layers of one run, given in the order of execution.

    Engines add layers of their own (changes of layout, fused remains) and drop names. Such a layer belongs to the stage
    of the layer before it, but what reorders an input to that of the layer after it; whatever comes before the first
    layer of the encoder and tells no module scales and normalises, and is front end.
    """
    known = [module_stage(name) for name in names]
    first = known.index("encoder") if "encoder" in known else 0
    stages: list[str] = []
    for position, (name, stage) in enumerate(zip(names, known, strict=True)):
        if stage is not None:
            stages.append(stage)
        elif position < first:
            stages.append("front end")
        elif name.startswith(("ReorderInput", "gemm_input_reshape")):
            following = next((later for later in known[position:] if later is not None), None)
            stages.append(following or stages[-1])
        else:
            stages.append(stages[-1] if stages else "front end")
    return stages


def in_order(seconds: dict[str, float]) -> dict[str, float]:
    """Stages in the order of execution, others last; those that take no time are left out."""
    names = [*STAGES, *(name for name in seconds if name not in STAGES)]
    return {name: seconds[name] for name in names if seconds.get(name)}
