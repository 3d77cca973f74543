"""Dreaming the cells of a study into its folder."""
