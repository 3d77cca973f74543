"""Dreams that move: films and zooms. Their files and frames, their motion, and what one frame gives to the next."""
