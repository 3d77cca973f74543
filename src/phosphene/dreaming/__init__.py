"""The mathematics of a dream: from an objective and a gradient to a picture."""
