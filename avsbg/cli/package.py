"""`avsbg package`: one file with what a device needs to run a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from avsbg.cli import MAKE, app
from avsbg.cli.options import BundlePath, Overwrite
from avsbg.cli.output import plain_console


@app.command(rich_help_panel=MAKE)
def package(  # noqa: PLR0917  (each is an option by name)
    bundle: BundlePath,
    target: Annotated[str, Option(metavar="NAME", help="jetpack6, jetpack7 or x86_64-cuda13.")],
    output: Annotated[Path, Option("-o", "--output", metavar="FILE", help="The .tar.zst to write.")],
    runtime: Annotated[
        Literal["python", "native", "both"], Option(help="The runtime on the device: Python, C++ (native), or both.")
    ] = "python",
    precision: Annotated[
        list[str] | None,
        Option(
            metavar="NAME",
            help="Precision of the engine that the device builds: fp16 by default. May be repeated, the default first.",
        ),
    ] = None,
    rest: Annotated[
        str | None,
        Option(
            metavar="TYPE",
            help="For int8 and fp8: the type of all that is not quantized, fp16 (for a Jetson Orin) or fp32 (the "
            "default, as of `avsbg build`).",
        ),
    ] = None,
    wheels: Annotated[
        Path | None,
        Option(metavar="DIR", help="A folder with the target's Python packages, so that the device needs no network."),
    ] = None,
    wheel: Annotated[
        Path | None, Option(metavar="FILE", help="The wheel of avsbg. By default it is built from the checkout.")
    ] = None,
    libraries: Annotated[
        Path | None,
        Option(metavar="DIR", help="Compiled native libraries for the target. By default the device builds them."),
    ] = None,
    native: Annotated[
        Path | None, Option(metavar="DIR", help="The folder of an installed C++ runtime, compiled for the target.")
    ] = None,
    video: Annotated[Path | None, Option(metavar="FILE", help="A video for the measurement on the device.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Pack a bundle for a device: runtime, plugin, and scripts that install, verify and measure it.

    On the device, unpack the file and run install.sh: it builds the engine there and writes a report (docs/device.md).
    The same bundle, options and versions give the same file, byte for byte.
    """
    from avsbg.export.package.package import PackageRequest, make_package
    from avsbg.export.package.targets import PackageError
    from avsbg.runtime.bundle import Bundle, sha256

    if output.exists() and not overwrite:
        raise PackageError(f"{output} exists already.", "Choose another path, or replace it with --overwrite.")
    precisions = tuple(precision or ("fp16",))
    request = PackageRequest(target, runtime, precisions, wheel, wheels, libraries, native, video, rest)
    with plain_console(stderr=True).status("packing") as status:
        facts = make_package(Bundle.open(bundle), request, output, status.update)
    console = plain_console()
    console.print(f"[bold]{output}[/bold]: {output.stat().st_size / 1e6:.1f} MB, sha256 {sha256(output)}")
    brought = ", ".join(f"{name} {version}" for name, version in facts["brought_by_the_system"].items())
    console.print(f"  for {facts['target']}, whose own system brings {brought}")
    if "plugin" in facts:
        console.print(f"  the plugin: {facts['plugin']}{', built on the device' * (facts['plugin'] == 'sources')}")
    if lacking := facts.get("python", {}).get("not_in_package"):
        console.print(f"  {len(lacking)} pinned packages are not in it: `install.sh --online` fetches them")
        console.print("  to pack them, fill a folder and give it with --wheels; docs/device.md has the command")
    console.print(f"  there: tar --zstd -xf {output.name} && cd {facts['folder']} && sudo ./install.sh")
