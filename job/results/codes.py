"""The codes of images: of a run's data set, or of anybody's own; as arrays for a .npz."""

import numpy as np
from torch import Tensor

from aae.blocks import encode
from aae.networks import Encoder
from job.data.datasets import check_dataset
from job.data.images import Images, load_images
from job.results.npz import Array
from job.results.weights import Weights

TRAIN, HELD_OUT, OWN = "train", "held-out", "own"  # words of `split`


def codes_of(encoder: Encoder, images: Images) -> dict[str, Array]:
    """codes (N, Z) float32, as the decoder takes them; labels (N) and indices (N) int64, an index counting these images."""
    codes = encode(encoder, images.pixels).numpy()
    return {"codes": codes, "labels": images.labels.numpy(), "indices": np.arange(len(codes))}


def codes_of_data_set(weights: Weights) -> dict[str, Array]:
    """The same of a run's training images and then of those held out, and split (N), which names them.

    Raises UsageError if the data set is not whole.
    """
    settings = weights.settings
    check_dataset(settings.dataset, settings.data_dir)
    parts = {
        word: codes_of(weights.model.encoder, load_images(settings.dataset, settings.data_dir, train=word == TRAIN))
        for word in (TRAIN, HELD_OUT)
    }
    arrays = {name: np.concatenate([part[name] for part in parts.values()]) for name in parts[TRAIN]}
    return {**arrays, "split": np.repeat(list(parts), [len(part["codes"]) for part in parts.values()])}


def codes_of_own(weights: Weights, pixels: Tensor) -> dict[str, Array]:
    """The same of images uint8 (N, 784), 255 = ink, that have no labels."""
    codes = encode(weights.model.encoder, pixels).numpy()
    return {"codes": codes, "indices": np.arange(len(codes)), "split": np.repeat(OWN, len(codes))}
