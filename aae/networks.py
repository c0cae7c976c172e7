"""The lecture's three networks, each with two hidden layers and dropout before the ReLU.

Shapes, here and in the whole package: B images in a batch, X = 784 pixels, H hidden units, Z code dimensions.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_SIDE = 28
NUM_PIXELS = IMAGE_SIDE * IMAGE_SIDE

AUTOENCODER_DROPOUT = 0.25
DISCRIMINATOR_DROPOUT = 0.20


class Perceptron(nn.Module):
    """Two hidden layers, each linear, dropout, ReLU; then a linear output without dropout.

    The output stays free of dropout since a dropped code would pile a quarter of the codes up at zero,
    and a dropped pixel would be noise that no training removes.
    """

    def __init__(self, num_inputs: int, num_hidden: int, num_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.hidden1 = nn.Linear(num_inputs, num_hidden)
        self.hidden2 = nn.Linear(num_hidden, num_hidden)
        self.output = nn.Linear(num_hidden, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.dropout(self.hidden1(x), self.dropout, self.training))  # (B, H)
        x = F.relu(F.dropout(self.hidden2(x), self.dropout, self.training))  # (B, H)
        output: Tensor = self.output(x)
        return output


class Encoder(Perceptron):
    """Q: images (B, X) in [0, 1] -> codes (B, Z)."""

    def __init__(self, latent_dim: int, hidden_dim: int, dropout: float = AUTOENCODER_DROPOUT) -> None:
        super().__init__(NUM_PIXELS, hidden_dim, latent_dim, dropout)


class Decoder(Perceptron):
    """P: codes (B, Z) -> logits of pixels (B, X); their sigmoid is the image, 1 = ink."""

    def __init__(self, latent_dim: int, hidden_dim: int, dropout: float = AUTOENCODER_DROPOUT) -> None:
        super().__init__(latent_dim, hidden_dim, NUM_PIXELS, dropout)


class Discriminator(Perceptron):
    """D: codes (B, Z) -> logits (B, 1) that a code was drawn from the prior."""

    def __init__(self, latent_dim: int, hidden_dim: int, dropout: float = DISCRIMINATOR_DROPOUT) -> None:
        super().__init__(latent_dim, hidden_dim, 1, dropout)


class AdversarialAutoencoder(nn.Module):
    """The three networks under one name, so that their weights are `encoder.*`, `decoder.*`, `discriminator.*`."""

    def __init__(
        self,
        latent_dim: int,
        hidden_dim: int,
        *,
        autoencoder_dropout: float = AUTOENCODER_DROPOUT,
        discriminator_dropout: float = DISCRIMINATOR_DROPOUT,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(latent_dim, hidden_dim, autoencoder_dropout)
        self.decoder = Decoder(latent_dim, hidden_dim, autoencoder_dropout)
        self.discriminator = Discriminator(latent_dim, hidden_dim, discriminator_dropout)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> "AdversarialAutoencoder":
        """The networks of these weights, which have their sizes in their shapes; in eval mode and without gradients.

        Raises KeyError or RuntimeError if they are no such weights.
        """
        latent_dim, hidden_dim = weights["encoder.output.weight"].shape
        with torch.device("meta"):  # nothing is drawn that would be thrown away
            model = cls(latent_dim, hidden_dim)
        model.load_state_dict(weights, assign=True)
        return model.eval().requires_grad_(False)

    @property
    def perceptrons(self) -> dict[str, Perceptron]:
        """The three by their names."""
        return {"encoder": self.encoder, "decoder": self.decoder, "discriminator": self.discriminator}

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct images: (B, X) in [0, 1] -> (B, X) in [0, 1]."""
        return torch.sigmoid(self.decoder(self.encoder(x)))
