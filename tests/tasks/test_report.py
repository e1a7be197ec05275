from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from fovea.tasks.report import Report


class Balance(HTMLParser):
    """Counts what is opened and closed, and collects every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_but_itself_and_escapes_words(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((8, 9, 3))
    page = (
        Report("A <b> & C", "lead")
        .numbers({"PSNR": "33.1 dB", "gain": "+0.4"}, accent="gain")
        .heading("Pictures")
        .pictures([("grey", image[..., 0]), ("colour", image), ("bytes", (image * 255).astype(np.uint8))], pixels=True)
        .key({"water & ice": (1, 20, 255), "soil": [90, 60, 30]})
        .table(["image", "PSNR"], [["a<b", 33.12345], ["mean", np.float64(3)]], strong_last=True)
        .curves({"loss": [(0, 1.0), (1, 0.5)], "other": [(0, 1.0)], "none": []}, levels={"bicubic": 0.7})
        .curves({"flat": [(3, 1.0)]})
        .curves({"none": []})
    )
    page.write(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert len(balance.addresses) == 3
    assert all(address.startswith("data:image/png;base64,") for address in balance.addresses)
    assert not re.search(r"https?://|@import|url\(", text)
    assert "A &lt;b&gt; &amp; C" in text
    assert "a&lt;b" in text
    assert 'rgb(1, 20, 255)"></i>water &amp; ice' in text
    assert "33.123" in text
    assert "nan" not in text.lower()
