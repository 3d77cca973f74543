"""A frozen network, computed quickly."""
