"""The command line of trtexec that a bundle records for an engine with the plugin, a word a line.

As its user would fill it in, to be run in the bundle: with the plugin's library; the engine goes to another file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

PLUGIN, ENGINE = "--dynamicPlugins=", "--saveEngine="


def main() -> None:
    """Print the command of the first engine that has the plugin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--plugin", type=Path, required=True, help="the plugin's library")
    parser.add_argument("--engine", type=Path, required=True, help="the engine to write")
    options = parser.parse_args()
    engines = json.loads((options.bundle / "manifest.json").read_text())["engines"]
    found = (shlex.split(engine.get("commands", {}).get("trtexec", "")) for engine in engines.values())
    command = next((words for words in found if any(word.startswith(PLUGIN) for word in words)), None)
    if command is None:
        names = ", ".join(engines) or "none"
        sys.exit(f"{options.bundle} records no command of trtexec with the plugin; its engines: {names}")
    given = {PLUGIN: options.plugin, ENGINE: options.engine}
    for word in command:
        option = next((option for option in given if word.startswith(option)), None)
        print(word if option is None else f"{option}{given[option]}")


if __name__ == "__main__":
    main()
