"""What networks are: their cards, weights, graphs and layers."""
