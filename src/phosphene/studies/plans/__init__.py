"""What there is to compare: each plan builds a `Study`."""
