"""Recipes: named sets of defaults, chosen by AAE_RECIPE; a setting given in any other way wins over its recipe's."""

from typing import Any, Literal, get_args

Recipe = Literal["lecture", "tuned", "paper"]

_TUNED: dict[str, Any] = {
    "batch_size": 500,
    "encoder_lr": 1e-3,
    "decoder_lr": 1e-3,
    "generator_lr": 5e-4,
    "discriminator_lr": 1e-3,
    "generator_eps": 1e-4,
    "lr_schedule": "cosine",
    "autoencoder_dropout": 0.0,
    "r1_penalty": 0.1,
    "lattice_mode": "quantile",
}

RECIPES: dict[str, dict[str, Any]] = {
    "lecture": {},
    "tuned": _TUNED,
    "paper": {
        **_TUNED,
        "latent_dim": 8,
        "prior_std": 5.0,
        "autoencoder_dropout": 0.1,
        "discriminator_dropout": 0.0,
        "code_noise": 0.1,
    },
}
assert set(RECIPES) == set(get_args(Recipe))
