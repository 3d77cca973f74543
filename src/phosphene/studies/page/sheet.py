"""The contact sheet: all of a study's pictures, small, in one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from phosphene import imagefile
from phosphene.dreaming.pyramid import fit_within
from phosphene.dreaming.resample import Resized, resize
from phosphene.imagefile import Photo
from phosphene.imagefile.lettering import lettering
from phosphene.studies.run.cell import Result
from phosphene.studies.run.folder import Folder
from phosphene.studies.study import Grid, Study
from phosphene.types import Image, Size

SIDE, GAP, MARGIN, TEXT = 160, 10, 32, 15
"""Long side of a picture, space between two, around all, and height of the words, in px."""

PAPER, INK, FAINT = 1.0, 0.12, 0.93


def contact_sheet(study: Study, photo: Photo, folder: Folder, results: Mapping[str, Result]) -> bytes:
    """Return a PNG with the photograph and each grid's pictures of the first seed, under their names."""
    size = fit_within((photo.image.shape[1], photo.image.shape[2]), SIDE, enlarge=True)
    blocks = [_titled("Photograph", resize(photo.image, size))]
    blocks += [_titled(grid.title, _grid(grid, size, folder, results)) for grid in study.grids]
    return imagefile.encode(_framed(_stacked(blocks, 2 * MARGIN // 3)))


def _grid(grid: Grid, size: Size, folder: Folder, results: Mapping[str, Result]) -> Image:
    head = [_word(column, size[1]) for column in grid.columns]
    rows = [_beside(head)]
    for row in grid.rows:
        pictures = [
            _picture(places[0].cell, size, folder, results) for c in grid.columns if (places := grid.at(row, c))
        ]
        rows += [_word(row, size[1] * len(grid.columns)), _beside(pictures)]
    return _stacked(rows, GAP)


def _picture(cell: str, size: Size, folder: Folder, results: Mapping[str, Result]) -> Image:
    if results[cell].failure is None:
        return resize(folder.dream(cell), size)
    blank = torch.full((3, *size), FAINT)
    return _inked(blank, "failed", (size[0] // 2 - TEXT, GAP))


def _titled(title: str, picture: Image) -> Resized:
    return _stacked([_word(title, picture.shape[2], TEXT * 3 // 2), picture], GAP)


def _word(text: str, width: int, size: int = TEXT) -> Image:
    return _inked(torch.full((3, round(size * 1.4), width), PAPER), text, (0, 0), size)


def _inked(paper: Image, text: str, corner: tuple[int, int], size: int = TEXT) -> Image:
    """Write on a copy of `paper`, from its corner (row, column) on; what does not fit is cut off."""
    top, left = corner
    ink = lettering(text, size)[: paper.shape[1] - top, : paper.shape[2] - left]
    written = paper.clone()
    part = written[:, top : top + ink.shape[0], left : left + ink.shape[1]]
    part.mul_(1 - ink).add_(INK * ink)
    return written


def _beside(pictures: list[Tensor]) -> Resized:
    height = max(picture.shape[1] for picture in pictures)
    padded = [_padded(picture, (height, picture.shape[2] + GAP)) for picture in pictures]
    return torch.cat(padded, dim=2)[:, :, :-GAP]


def _stacked(pictures: list[Tensor], gap: int) -> Resized:
    width = max(picture.shape[2] for picture in pictures)
    return torch.cat([_padded(picture, (picture.shape[1] + gap, width)) for picture in pictures], dim=1)[:, :-gap]


def _padded(picture: Image, size: Size) -> Resized:
    paper = torch.full((3, *size), PAPER)
    paper[:, : picture.shape[1], : picture.shape[2]] = picture
    return paper


def _framed(picture: Image) -> Resized:
    return torch.nn.functional.pad(picture, (MARGIN,) * 4, value=PAPER)
