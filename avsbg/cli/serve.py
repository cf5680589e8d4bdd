"""`avsbg serve`: a bundle for an inference server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from avsbg.cli import RUN, VerbGroup, app
from avsbg.cli.options import BundlePath, Overwrite, Threads

serve = Typer(cls=VerbGroup, no_args_is_help=True, help="Serve a bundle to many clients and streams.")
app.add_typer(serve, name="serve", rich_help_panel=RUN)


@serve.command()
def triton(  # noqa: PLR0917  (each is an option by name)
    bundle: BundlePath,
    output: Annotated[
        Path, Option("-o", "--output", metavar="REPOSITORY", help="The model repository. It may contain other models.")
    ],
    backend: Annotated[
        str,
        Option(
            metavar="NAME",
            help="Triton's backend: python (needs avsbg on the server), onnxruntime (graphs) or tensorrt (engines).",
        ),
    ] = "python",
    implementation: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="How to compute the correlation operator: native (onnxruntime) and plugin (tensorrt) use our library; "
            "plain, the default, and function need none.",
        ),
    ] = None,
    precision: Annotated[str | None, Option(metavar="NAME", help="The precision of the graphs.")] = None,
    execute_with: Annotated[
        str | None,
        Option(metavar="NAME", help="The backend inside Triton's Python backend, e.g. onnxruntime:native."),
    ] = None,
    name: Annotated[
        str | None, Option(metavar="NAME", help="The name of the models; -clip and -stream are added.")
    ] = None,
    max_batch: Annotated[int, Option(min=1, metavar="N", help="The most clips in one call.")] = 8,
    max_streams: Annotated[
        int, Option(min=1, metavar="N", help="The most streams that are open at the same time.")
    ] = 64,
    delay: Annotated[
        float, Option(min=0, metavar="SECONDS", help="How long a request may wait for others to form a batch.")
    ] = 0.002,
    instances: Annotated[int, Option(min=1, metavar="N", help="Copies of each model that run at the same time.")] = 1,
    gpu: Annotated[int | None, Option(min=0, metavar="N", help="Run on GPU N. By default on the processor.")] = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a bundle as a model repository of NVIDIA's Triton Inference Server.

    The model NAME-clip takes whole clips, and batches those that wait. NAME-stream takes one frame of a stream per
    request and returns the mask of the frame before; it needs the graphs of `avsbg export --stream`.
    """
    from avsbg.cli.backends import join_names
    from avsbg.cli.output import plain_console
    from avsbg.runtime.backends import BackendSpec
    from avsbg.runtime.bundle import Bundle
    from avsbg.runtime.errors import BackendError
    from avsbg.runtime.serving.config import ServeOptions, default_name

    opened = Bundle.open(bundle)
    spec = BackendSpec.parse(join_names(backend, implementation, precision))
    options = ServeOptions(name or default_name(opened), max_batch, max_streams, delay, instances, gpu)
    if spec.backend == "python":
        from avsbg.runtime.serving.repository import write_python_repository

        if spec != BackendSpec("python"):
            raise BackendError(f"the Python backend takes {spec} by --execute-with, e.g. onnxruntime:native:fp16.")
        inner = execute_with or ("onnxruntime" if gpu is None else "onnxruntime-cuda")
        written = write_python_repository(opened, output, options, backend=inner, threads=threads, replace=overwrite)
    else:
        from avsbg.export.serving import write_graph_repository

        if execute_with is not None or threads is not None:
            raise BackendError("--execute-with and --threads are for the Python backend.")
        written = write_graph_repository(opened, output, options, spec, replace=overwrite)
    console = plain_console(markup=False)
    for folder in written:
        console.print(f"{folder}")
    if len(written) == 1:
        console.print("no stream model: the bundle has no graphs for streams (avsbg export --stream)")
