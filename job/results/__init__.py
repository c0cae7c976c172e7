"""What people look at and carry away: weights, lattices, samples, curves."""
