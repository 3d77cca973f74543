"""Networks: what is known of them, where their weights are, and how their layers are read."""
