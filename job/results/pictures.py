"""PNG files: pictures as arrays in, bytes out, with what they show written into their text fields."""

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from aae.lattice import Lattice, decode_picture
from aae.networks import Decoder
from job.config.settings import Settings


def png(picture: Tensor, texts: dict[str, str]) -> bytes:
    """Encode an uint8 picture (rows, columns) as an 8-bit grey PNG with text fields; the same bytes every time."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    file = io.BytesIO()
    Image.fromarray(picture.numpy()).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def lattice_of(settings: Settings) -> Lattice:
    """The lattice that a run draws."""
    return Lattice(
        size=settings.lattice_size,
        extent=settings.lattice_extent,
        mode=settings.lattice_mode,
        latent_dim=settings.latent_dim,
        prior_std=settings.prior_std,
    )


def lattice_png(decoder: Decoder, lattice: Lattice, step: int) -> bytes:
    """A decoded lattice as a PNG; it names neither run nor time, so equal lattices are equal files."""
    return png(decode_picture(decoder, lattice.codes()), {"step": str(step), **lattice.texts()})
