"""What each address of the studio answers; `app.ROUTES` lists them."""
