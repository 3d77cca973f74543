"""What a person asks for: settings, terms, looks, and how they are spelt. Pure data, no torch."""
