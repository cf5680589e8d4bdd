"""Reading and writing weights: the publications' checkpoints and our own `.safetensors`, never unpickled."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avsbg.atomic import atomic_file
from avsbg.errors import AvsbgError, first_line
from avsbg.model.published import canonical_key, ignored_keys, published_keys

# Keys under which training scripts save the state dict, most specific first.
_NESTED = ("state_dict", "model_state_dict", "model", "generator")
# Put in front of each key by DataParallel, by torch.compile and by training frameworks that keep a network as `model`.
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_RESAVE = "Save it again where it was made, as .safetensors or with torch.save(network.state_dict(), FILE)."
_DOWNLOAD = "Download the file itself: open the address in a browser, or use the host's own download command."


class CheckpointError(AvsbgError):
    """A checkpoint that cannot be read or does not fit the network.

    Attributes:
        missing: keys that the network needs and the file lacks.
        unexpected: keys in the file that the network has no place for.
        misshaped: key to (shape in the file, shape that the network needs).
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        missing: tuple[str, ...] = (),
        unexpected: tuple[str, ...] = (),
        misshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.missing, self.unexpected, self.misshaped = missing, unexpected, dict(misshaped or {})


@dataclass(frozen=True)
class LoadReport:
    """The outcome of loading a checkpoint."""

    names: str  # `published` or `avsbg`: whose key names the file has
    loaded: int  # how many tensors went into the network
    ignored: tuple[str, ...]  # keys known and not needed: never used by the published model, or switched off here
    # Taken off around the state dict: the entry that holds it (`state_dict`), prefixes of its keys (`module.`).
    unwrapped: tuple[str, ...] = ()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The names and tensors of a `.safetensors` file or of a state dict, never unpickled.

    A state dict one level down (`state_dict`, `model_state_dict`, `model`, `generator`) and keys with `module.`,
    `_orig_mod.` or `model.` in front are read as if saved alone.

    Raises:
        CheckpointError: the file is missing, cannot be read, holds anything else, or a value is NaN or infinite.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors, and what was taken off around them."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"the checkpoint {path} {what}.", "Give the path of a .pth or .safetensors file.")
    if (kind := _foreign_kind(path)) is not None:
        raise CheckpointError(f"the checkpoint {path} is {kind[0]}.", kind[1])
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # PyTorch's message advises to unpickle the file after all; only its reason is passed on.
        found = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        what = f"{found[1]} beside tensors" if found else "more than tensors"
        message = f"the checkpoint {path} holds {what} and is not unpickled, since that could run code."
        raise CheckpointError(message, _RESAVE) from error
    except Exception as error:
        message = f"the checkpoint {path} cannot be read: {first_line(error)}"
        raise CheckpointError(message, "Is it complete, and a .pth or .safetensors file?") from error
    tensors, unwrapped = _unwrap(content, path)
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            stored = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
            raise CheckpointError(f"the checkpoint {path} holds {name} as {stored}, not as plain numbers.", _RESAVE)
        if tensor.is_floating_point() and not (finite := torch.isfinite(tensor.float())).all():
            where = f"{name}, in {int((~finite).sum())} of {tensor.numel()} values"
            hint = "Its training diverged, or the file is damaged; take an earlier checkpoint."
            raise CheckpointError(f"the checkpoint {path} holds NaN or infinity: {where}.", hint)
    return tensors, unwrapped


def _foreign_kind(path: Path) -> tuple[str, str] | None:
    """End of an error message: what a file is that is no checkpoint, and what to do; None if it may be one."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size
    data: bytes | None = None  # the start of the pickle
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
            if not pickles:
                return "a zip archive without a PyTorch checkpoint", "Unpack it, and give the checkpoint inside."
            with archive.open(pickles[0]) as member:
                data = member.read(2)
    elif head[:1] == b"\x80":
        data = head[:2]
    protocol = data[1] if data is not None and data[:1] == b"\x80" else 0
    is_safetensors_name = path.suffix == ".safetensors"
    kinds = (
        (not head, "an empty file", "Fetch or save it again."),
        (
            text.startswith(b"version https://git-lfs"),
            "a Git LFS pointer, not the file that it stands for",
            "Fetch the file: `git lfs pull`.",
        ),
        (text[:1] == b"<", "a web page (HTML or XML), not weights", _DOWNLOAD),
        (text[:1] in (b"{", b"["), "a text file (JSON), not weights", _DOWNLOAD),
        (head[:2] == b"\x1f\x8b", "compressed with gzip", "Unpack it: `gunzip FILE`."),
        (head[:8] == b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras), not one of PyTorch", _RESAVE),
        (
            is_safetensors and not is_safetensors_name,
            "a safetensors file under another name",
            f"Rename it to {path.stem}.safetensors.",
        ),
        (
            data is not None and is_safetensors_name,
            "a file of PyTorch's torch.save under another name",
            f"Rename it to {path.stem}.pth.",
        ),
        (protocol > 2, f"a pickle of protocol {protocol}; only protocol 2 can be read without running code", _RESAVE),
        (b"\0" not in head and head.isascii(), "a text file, not weights", _DOWNLOAD),
    )
    return next(((kind, hint) for applies, kind, hint in kinds if applies), None)


def _unwrap(content: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The state dict in what a file holds, without the wrappers of training scripts, and what those were."""
    unwrapped: list[str] = []
    if isinstance(content, Mapping) and not _is_state(content):
        for name in _NESTED:
            if _is_state(content.get(name)):
                content, unwrapped = content[name], [name]
                break
    if not isinstance(content, Mapping) or not _is_state(content):
        holds = f", but {', '.join(map(str, list(content)[:8]))}" if isinstance(content, Mapping) else ""
        message = f"the checkpoint {path} holds no state dict, a mapping of names to tensors{holds}."
        raise CheckpointError(message, _RESAVE)
    tensors = {str(key): value for key, value in content.items()}
    while prefix := next((one for one in _WRAPPERS if all(key.startswith(one) for key in tensors)), None):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
        unwrapped.append(prefix)
    if any("._orig_mod." in key for key in tensors):  # parts that were compiled on their own
        tensors = {key.replace("._orig_mod.", "."): value for key, value in tensors.items()}
        unwrapped.append("._orig_mod")
    return tensors, tuple(unwrapped)


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(one, Tensor) for one in value.values())


def _listed(label: str, names: list[str]) -> str:
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"{len(names)} {label}: {shown}."


def load_checkpoint(network: nn.Module, path: str | Path) -> LoadReport:
    """Load a checkpoint into `network`, all of it or nothing.

    Args:
        network: of `create_network`, or a `VGGish`.
        path: `.safetensors`, or a state dict of PyTorch (`.pth`), with the published key names or our own; see
            `read_tensors`.

    Returns:
        what was loaded and what was left aside.

    Raises:
        CheckpointError: the file cannot be read, or keys are missing, unexpected or of another shape (by name, in the
            error's attributes too). The network is unchanged then.
    """
    path = Path(path)
    tensors, unwrapped = _read(path)
    own = network.state_dict()
    renamed = published_keys(network)
    is_published = len(set(tensors) & set(renamed.values())) >= len(set(tensors) & set(own))
    source = renamed if is_published else {key: key for key in own}

    wanted = set(source.values())
    ignored: list[str] = []
    if is_published:
        repeated = {key: name for key in tensors if (name := canonical_key(network, key)) != key}
        ignored = [*repeated, *ignored_keys(network, [key for key in tensors if key not in wanted | set(repeated)])]
        tensors = {**{name: tensors[key] for key, name in repeated.items() if name in wanted}, **tensors}
    assign_tensors(
        network,
        {key: value for key, value in tensors.items() if key not in set(ignored)},
        source,
        misfit=f"the checkpoint {path} does not fit the network.",
        hint="Check the network, the encoder and the switches it was trained with.",
    )
    return LoadReport("published" if is_published else "avsbg", len(own), tuple(ignored), unwrapped)


def assign_tensors(
    module: nn.Module, tensors: Mapping[str, Tensor], source: Mapping[str, str], *, misfit: str, hint: str
) -> None:
    """Copy tensors, by the names that a file gives them, into a module: all of them or none.

    Args:
        source: each key of the module's state dict to the name of its tensor.
        misfit, hint: of the error: what does not fit what, and how to go on.

    Raises:
        CheckpointError: tensors are missing, unexpected, of another shape or of whole numbers.
    """
    own = module.state_dict()
    # Older files may lack the batch norms' step counters, which inference does not use.
    missing = [name for name in source.values() if name not in tensors and not name.endswith(".num_batches_tracked")]
    wanted = set(source.values())
    unexpected = [name for name in tensors if name not in wanted]
    misshaped = {
        name: (tuple(tensors[name].shape), tuple(own[key].shape))
        for key, name in source.items()
        if name in tensors and tensors[name].shape != own[key].shape
    }
    # Copied into weights, whole numbers would be taken for rounded ones.
    whole = [
        f"{name} as {str(tensors[name].dtype).removeprefix('torch.')}"
        for key, name in source.items()
        if name in tensors and own[key].is_floating_point() and not tensors[name].is_floating_point()
    ]
    if missing or unexpected or misshaped or whole:
        shapes = [f"{key} {list(found)} instead of {list(needed)}" for key, (found, needed) in misshaped.items()]
        parts = (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
            ("not of real numbers", whole),
        )
        message = " ".join([misfit, *(_listed(label, names) for label, names in parts if names)])
        keys = {"missing": tuple(missing), "unexpected": tuple(unexpected)}
        raise CheckpointError(message, hint, misshaped=misshaped, **keys)
    module.load_state_dict({key: tensors[name] for key, name in source.items() if name in tensors}, strict=False)


def save_checkpoint(network: nn.Module, path: str | Path) -> None:
    """Write the network's weights, with our key names, to a file named `.safetensors` (complete or not at all)."""
    from safetensors.torch import save_file

    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"weights are saved as .safetensors, not {path.name!r}.")
    with atomic_file(path) as temporary:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, temporary)
