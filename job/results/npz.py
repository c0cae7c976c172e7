"""numpy's .npz files, written array by array and block by block, always with the same bytes for the same arrays."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Streamed:
    """An array that comes into being while it is written: its shape, its type, and its blocks along the first axis."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[Array]

    @property
    def nbytes(self) -> int:
        """What it takes in memory and in a file."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def write_npz(file: BinaryIO, arrays: Mapping[str, Array | Streamed]) -> None:
    """Write arrays as `numpy.load` reads them; not compressed, since zlib's bytes differ from release to release."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            streamed = array if isinstance(array, Streamed) else Streamed(array.shape, array.dtype, [array])
            header = {"descr": npy.dtype_to_descr(streamed.dtype), "fortran_order": False, "shape": streamed.shape}
            # ZipInfo's own time is 1980, whenever it is.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, header)
                for block in streamed.blocks:
                    member.write(block.tobytes())


def npz(arrays: Mapping[str, Array | Streamed]) -> bytes:
    """The same in memory."""
    file = io.BytesIO()
    write_npz(file, arrays)
    return file.getvalue()
