"""What a chapter holds."""

from __future__ import annotations

import matplotlib.figure

from reports.blocks import Figure, Figures, Folded, Text, walk
from reports.drawing import Drawing


def test_blocks_inside_others_are_found_in_the_order_of_the_page():
    one, two = (Figure(name, "", "", Drawing(matplotlib.figure.Figure)) for name in "ab")
    inner = Folded("more", (Text("t"), Figures((two,))))
    found = list(walk((Figures((one,)), inner)))
    assert [type(block).__name__ for block in found] == ["Figures", "Figure", "Folded", "Text", "Figures", "Figure"]
    assert found[1] is one
    assert found[-1] is two
