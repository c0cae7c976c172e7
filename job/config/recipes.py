"""Recipes: named sets of defaults, chosen by AAE_RECIPE; a setting given in any other way wins over its recipe's."""

from typing import Any, Literal, get_args

Recipe = Literal["lecture", "tuned", "paper"]

RECIPES: dict[str, dict[str, Any]] = {
    "lecture": {},
    "tuned": {
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
    },
    "paper": {
        "latent_dim": 8,
        "prior_std": 5.0,
        "batch_size": 500,
        "encoder_lr": 1e-3,
        "decoder_lr": 1e-3,
        "generator_lr": 5e-4,
        "discriminator_lr": 1e-3,
        "generator_eps": 1e-4,
        "lr_schedule": "cosine",
        "autoencoder_dropout": 0.1,
        "discriminator_dropout": 0.0,
        "code_noise": 0.1,
        "r1_penalty": 0.1,
        "lattice_mode": "quantile",
    },
}
assert set(RECIPES) == set(get_args(Recipe))
