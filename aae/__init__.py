"""The adversarial autoencoder of the lecture: networks, losses, prior and lattice, on torch alone."""
