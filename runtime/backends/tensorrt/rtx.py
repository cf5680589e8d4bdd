"""Importing TensorRT for RTX so that plugins work.

Its library looks itself up as `libtensorrt_rtx.so`, while the wheel holds only `libtensorrt_rtx.so.1`: without the
first name, the first plugin node that is parsed ends the process (seen with 1.7.1). The dynamic linker answers a
look-up by name with any object already loaded whose SONAME is that name. So before anything is parsed, this module
loads a library that is nothing but that SONAME and a dependency on the real one. It is written here, byte by byte,
since a device or a build machine need not have a linker, and since site-packages is not ours to add files to.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import tempfile
from pathlib import Path
from types import ModuleType

from avsbg.runtime.errors import BackendError

_WANTED = "libtensorrt_rtx.so"
_SHIPPED = "libtensorrt_rtx.so.1"


@functools.cache
def import_tensorrt_rtx() -> ModuleType:
    """Import `tensorrt_rtx`, ready to load plugins; a `BackendError` where it is not installed or cannot be loaded."""
    try:
        import tensorrt_rtx
    except (ImportError, OSError) as error:
        hint = "Install it with `pip install 'avsbg[rtx]'`."
        raise BackendError(f"TensorRT for RTX cannot be imported: {error}.", hint) from error
    with Path("/proc/self/exe").open("rb") as executable:
        (machine,) = struct.unpack_from("<H", executable.read(20), 18)  # this interpreter's e_machine
    with tempfile.TemporaryDirectory() as folder:
        alias = Path(folder) / "alias.so"
        alias.write_bytes(elf_alias(_WANTED, _SHIPPED, machine))
        try:
            ctypes.CDLL(str(alias), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise BackendError(f"the library of TensorRT for RTX cannot be found by its name: {error}.") from error
    return tensorrt_rtx


def elf_alias(soname: str, needed: str, machine: int) -> bytes:
    """A 64-bit little-endian ELF shared object without code: a name and a dependency (System V ABI, chapters 4 and 5).

    It is known as `soname` once loaded, and a look-up in it finds the symbols of `needed`. `machine` is its e_machine,
    e.g. 62 for x86-64, 183 for AArch64.
    """
    strings = b"\0" + soname.encode() + b"\0" + needed.encode() + b"\0"
    header_size, program_header_size, program_headers = 64, 56, 3
    hash_table = header_size + program_headers * program_header_size
    symbols = hash_table + 24  # after the hash table: one bucket, one chain, both empty, padded to 8 bytes
    string_table = symbols + 24  # after the one symbol that every table begins with
    dynamic = (string_table + len(strings) + 7) // 8 * 8
    entries = [
        (14, 1),  # DT_SONAME: offset into the strings
        (1, len(soname) + 2),  # DT_NEEDED: offset into the strings
        (4, hash_table),  # DT_HASH
        (5, string_table),  # DT_STRTAB
        (6, symbols),  # DT_SYMTAB
        (10, len(strings)),  # DT_STRSZ
        (11, 24),  # DT_SYMENT
        (0, 0),  # DT_NULL
    ]
    dynamic_size = 16 * len(entries)
    size = dynamic + dynamic_size
    shared_object, version, read_write = 3, 1, 6
    load, dynamic_segment, gnu_stack = 1, 2, 0x6474E551
    largest_page = 0x10000
    return b"".join(
        [
            b"\x7fELF" + bytes([2, 1, 1]) + bytes(9),
            struct.pack("<HHIQQQI", shared_object, machine, version, 0, header_size, 0, 0),
            struct.pack("<HHHHHH", header_size, program_header_size, program_headers, 0, 0, 0),
            struct.pack("<IIQQQQQQ", load, read_write, 0, 0, 0, size, size, largest_page),
            struct.pack("<IIQQQQQQ", dynamic_segment, read_write, *3 * [dynamic], *2 * [dynamic_size], 8),
            # Without this header the linker would want an executable stack.
            struct.pack("<IIQQQQQQ", gnu_stack, read_write, 0, 0, 0, 0, 0, 16),
            struct.pack("<6I", 1, 1, 0, 0, 0, 0),
            bytes(24),
            strings.ljust(dynamic - string_table, b"\0"),
            b"".join(struct.pack("<QQ", *entry) for entry in entries),
        ]
    )
