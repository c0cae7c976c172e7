"""Images of one's own: the array `images` of a .npz, or a folder of PNG files."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from aae.networks import IMAGE_SIDE, NUM_PIXELS
from job.errors import UsageError
from job.rundir.small_file import exists, is_folder, names_in

_WANTED = f"wanted: uint8 (N, {IMAGE_SIDE}, {IMAGE_SIDE}), 255 = ink"


def read_own_images(path: Path) -> Tensor:
    """Images as uint8 (N, 784), 255 = ink, of a folder in the order of its files' names; raises UsageError if they are none."""
    if is_folder(path):
        return _of_folder(path)
    if not exists(path):
        raise UsageError(f"--images {path}: there is no such file or folder")
    return _of_npz(path)


def _of_npz(path: Path) -> Tensor:
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise UsageError(f"--images {path} holds one array without a name; {_WANTED}, as `images` in a .npz")
        with found as arrays:
            if "images" not in arrays:
                names = ", ".join(arrays) or "nothing"
                raise UsageError(f"--images {path} holds {names}, but no `images`; {_WANTED}")
            images = arrays["images"]
    except MemoryError as error:
        raise UsageError(f"--images {path} does not fit into memory ({error}); give it in parts") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"--images {path} is no .npz that can be read: {error}") from error
    if images.dtype != np.uint8 or images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE) or not len(images):
        raise UsageError(f"--images {path}: `images` is {images.dtype} {images.shape}; {_WANTED}")
    return torch.from_numpy(np.ascontiguousarray(images).reshape(-1, NUM_PIXELS))


def _of_folder(folder: Path) -> Tensor:
    names = [name for name in names_in(folder) if name.lower().endswith(".png") and not name.startswith(".")]
    if not names:
        raise UsageError(f"--images {folder} holds no PNG file")
    return torch.from_numpy(np.stack([_pixels(folder / name) for name in names]))


def _pixels(path: Path) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """Those of one PNG, (784,)."""
    wanted = f"wanted: {IMAGE_SIDE} x {IMAGE_SIDE}, 8-bit grey (L), 255 = ink"
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if (image.mode, image.size) != ("L", (IMAGE_SIDE, IMAGE_SIDE)):
                raise UsageError(f"--images {path} is {image.width} x {image.height}, mode {image.mode}; {wanted}")
            return np.asarray(image).reshape(NUM_PIXELS)
    except UnidentifiedImageError as error:
        raise UsageError(f"--images {path} is no PNG; {wanted}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"--images {path} cannot be read: {error}; {wanted}") from error
