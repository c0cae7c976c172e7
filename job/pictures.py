"""PNG files: pictures as arrays in, bytes out, with what they show written into their text fields."""

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor


def png(picture: Tensor, texts: dict[str, str]) -> bytes:
    """Encode an uint8 picture (rows, columns) as an 8-bit grey PNG with text fields; the same bytes every time."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def lattice_png(picture: Tensor, *, step: int, extent: float, latent_dim: int) -> bytes:
    """A lattice with even steps over +-extent as a PNG; it names neither run nor time, so equal lattices are equal files."""
    return png(picture, {"step": str(step), "extent": str(extent), "latent_dim": str(latent_dim), "mode": "unit"})
