"""The addresses of the studio, and what each answers."""
