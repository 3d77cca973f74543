"""What dreams are measured by."""
