"""Make the pictures of the README and docs/pictures.md: dreams of free photographs by the default network.

python scripts/gallery.py docs/pictures
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import phosphene
from phosphene.imagefile import read
from phosphene.recipe.looks import LOOKS

MODEL = "efficientnet_lite0"
QUALITY = {"quality": 88, "optimize": True, "progressive": True}


def pixels(image):
    return Image.fromarray((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def captioned(picture, caption):
    """The picture with a caption in a band of its own below it."""
    font = ImageFont.load_default(size=18)
    whole = Image.new("RGB", (picture.width, picture.height + 32), "white")
    whole.paste(picture)
    ImageDraw.Draw(whole).text((8, picture.height + 5), caption, font=font, fill="black")
    return whole


def sheet(pictures, columns, gap=6):
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for index, picture in enumerate(pictures):
        whole.paste(picture, (index % columns * (width + gap), index // columns * (height + gap)))
    return whole


def hero(folder):
    dream = phosphene.dream("sample:coffee")
    sheet([pixels(dream.photograph), pixels(dream.image)], 2).save(folder / "hero.jpg", **QUALITY)


def guided(folder):
    guide = pixels(read("sample:chelsea").image)
    pictures = [captioned(guide.resize((600, 399), Image.Resampling.LANCZOS), "the guide")]
    for guide_by in ("match", "channels"):
        picture = pixels(phosphene.dream("sample:coffee", guide="sample:chelsea", guide_by=guide_by).image)
        pictures.append(captioned(picture.resize((600, 399)), f"guided by {guide_by}"))
    sheet(pictures, 3).save(folder / "guided.jpg", **QUALITY)


def looks(folder):
    pictures = [captioned(pixels(read("sample:coffee").image), "the photograph")]
    pictures += [captioned(pixels(phosphene.dream("sample:coffee", look=look).image), look) for look in LOOKS[MODEL]]
    sheet(pictures, 3).save(folder / "looks.jpg", **QUALITY)


def photographs(folder, height=300, gap=6):
    pictures = []
    for sample, look in (("chelsea", "creatures"), ("rocket", "strokes"), ("hubble_deep_field", "orchard")):
        picture = pixels(phosphene.dream(f"sample:{sample}", look=look, size=640).image)
        picture = picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS)
        pictures.append(captioned(picture, f"{sample}, {look}"))
    row = Image.new("RGB", (sum(p.width + gap for p in pictures) - gap, pictures[0].height), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + gap
    row.save(folder / "photographs.jpg", **QUALITY)


def choice(folder):
    """The sheet that the default look was chosen from: layers down, norms and strengths across."""
    pictures = []
    for layer in ("blocks.2.1", "blocks.3.2", "blocks.4.0", "blocks.4.2", "blocks.5.1"):
        for norm, step_size in (("mean_abs", 0.012), ("laplacian", 0.004), ("laplacian", 0.008), ("laplacian", 0.015)):
            dream = phosphene.dream(
                "sample:coffee", layers=layer, norm=norm, step_size=step_size, size=300, balanced=False, score="l2"
            )
            pictures.append(captioned(pixels(dream.image), f"{layer}  {norm} {step_size}"))
    sheet(pictures, 4).save(folder / "choice.jpg", **QUALITY)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for make in (hero, guided, looks, photographs, choice):
        make(target)
