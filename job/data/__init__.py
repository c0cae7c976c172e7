"""The images: which data sets there are, the embedded one, and the batch of a step."""
