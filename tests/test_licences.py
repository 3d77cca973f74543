"""The page of licences names what is installed, and the core has no GPL in it."""

import re

import licences
import pytest

PAGE = (licences.PROJECT / "docs/licences.md").read_text()


@pytest.mark.parametrize("group", ["core", *licences.GROUPS])
def test_the_page_names_all_that_is_installed(group):
    section = PAGE.partition("## core\n")[2] if group == "core" else PAGE
    assert set(licences.needed(group)) <= set(re.findall(r"^\| ([a-z0-9-]+) \|", section, re.MULTILINE))


def test_what_the_core_carries_is_no_gpl():
    carried = [text for one in licences.needed("core").values() for text in licences.carried(one).values()]
    assert not [text for text in carried if text.startswith("GPL") and "exception" not in text]
    assert not [name for name, one in licences.needed("core").items() if re.match("A?GPL", licences.licence(one))]


def test_what_the_films_carry_is_known():
    assert "libx264" in licences.carried(licences.needed("video")["av"])
    assert licences.carried(licences.needed("core")["pi-heif"]).keys() == {"libheif", "libde265"}
