"""A recipe and a network, made ready for a dream: device, size, memory, and the gradient function."""
