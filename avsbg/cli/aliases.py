"""Verbs and options by their old names, which work for one more version; a note on stderr says the new name."""

from __future__ import annotations

from collections.abc import Iterable

GROUPS = ("bench", "data")
BENCH = ("run", "stream", "compare", "report")  # `avsbg bench BUNDLE` is the first
VERBS = {
    "convert": "quantize",
    "bench-stream": "bench stream",
    "compare": "bench compare",
    "report": "bench report",
}
_OVERWRITE = {"--force": "--overwrite"}
_MEDIA = {"--silent": "--no-sound", "--ignore-accuracy": "--allow-failed-accuracy"}
# Of each verb: an old option, and the words that take its place (none where it was the default).
OPTIONS = {
    "export": {**_OVERWRITE, "--audio-encoder": "--audio-weights", "--merge": ""},
    "quantize": {"--judge": "--accuracy", "--judge-clips": "--accuracy-clips", "--gate": "--min-miou"},
    "build": {"--operator": "--implementation", "--clips": "--batch-range"},
    "run": {**_OVERWRITE, **_MEDIA, "--stream": "--mode stream", "--clips": "--mode clip", "--overlay": ""},
    "visualize": {**_OVERWRITE, **_MEDIA, "--clips": "--limit"},
    "bench run": {
        **_OVERWRITE,
        "--clips": "--batch",
        "--memory": "",
        "--seconds": "--min-time",
        "--patience": "--extra-rounds",
    },
    "bench stream": {
        **_OVERWRITE,
        "-o": "--rows",
        "--output": "--rows",
        "--rate": "--fps",
        "--seconds": "--duration",
    },
    "train": {"--workers": "--loader-workers"},
    "bench report": {**_OVERWRITE, "--accuracy": "--scores", "--classes": "--class-scores"},
    "eval": {"--stream": "--mode stream", "--pictured": "--picture-clips"},
    "data convert-avsbench": _OVERWRITE,
    "data prepare": _OVERWRITE,
    "data show": {"-o": "--picture", "--output": "--picture", "--clips": "--limit"},
    "data video": {"--clips": "--limit"},
    "data sounding-stamps": {"--clips": "--split-sizes"},
    "verify": {"--clips": "--batch"},
    "inspect": {"--json": "--format json"},
    "doctor": {"--json": "--format json"},
}


def rename(arguments: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Replace old names in the arguments of `avsbg`; `--` ends the options.

    Returns:
        The arguments, and each old name that was met with its new one.
    """
    words, met = list(arguments), list[tuple[str, str]]()
    if words[:1] and (verb := VERBS.get(words[0])):
        met.append((f"avsbg {words[0]}", f"avsbg {verb}"))
        words[:1] = verb.split()
    if len(words) > 1 and words[0] == "bench" and words[1] not in (*BENCH, "--help"):
        words.insert(1, "run")
    depth = 2 if words[:1] and words[0] in GROUPS else 1
    renamed = OPTIONS.get(" ".join(words[:depth]), {})
    end = words.index("--") if "--" in words else len(words)
    result = words[:depth]
    for word in words[depth:end]:
        name, equals, value = word.partition("=")
        if name in renamed:
            met.append((name, renamed[name]))
            result += renamed[name].split()
            if equals:
                result[-1] += f"={value}"
        else:
            result.append(word)
    return result + words[end:], met


def print_notes(met: Iterable[tuple[str, str]]) -> None:
    """Print the new name of each old one."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for old, new in met:
        console.print(f"note: {old} is now {new or 'the default'}; the old name goes with the next version")
