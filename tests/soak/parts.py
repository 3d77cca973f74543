"""All that is tried."""

from soak import Part
from soak.asking import requests
from soak.folders import damages, full_disks, kills
from soak.leaks import dreams
from soak.pictures import absurd_headers, pictures_in_memory, pictures_streamed
from soak.recipes import recipe_texts, recipes
from soak.weightfiles import weights_files
from soak.workers import killed_workers

PARTS = (
    Part("kills", kills, seconds=300, share=2),
    Part("full disks", full_disks),
    Part("damaged folders", damages, share=2),
    Part("pictures in memory", pictures_in_memory, seconds=10, megabytes=700, share=2),
    Part("pictures streamed", pictures_streamed, seconds=10, megabytes=700, share=2),
    Part("absurd headers", absurd_headers, seconds=10, megabytes=1500),
    Part("recipes", recipes, share=2),
    Part("recipes' texts", recipe_texts, share=0.2),
    Part("requests", requests),
    Part("weights", weights_files),
    Part("dreams on end", dreams, share=2),
    Part("killed workers", killed_workers, seconds=300),
)
