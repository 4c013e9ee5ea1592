"""Where two models look: the pictures of a shard on which they agree least and most, with their top image tokens."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vsel_platform.pipeline import attention
from vsel_platform.pipeline.context import Context
from vsel_platform.reports.pictures import Caption, distinct_pictures, shard_excerpts, tiles
from vsel_platform.reports.style import SELECTED, WARNING

if TYPE_CHECKING:
    from PIL import Image

CANDIDATES = 200
SIDE_PX = 256
VEIL = 150
"""How much of a cell's colour covers the picture, of 255."""


@dataclass(frozen=True, slots=True)
class _Look:
    """Top image tokens of both models on a row, of `n_tokens` each."""

    first: frozenset[int]
    second: frozenset[int]
    n_tokens: int

    @property
    def overlap(self) -> float:
        """Intersection over union."""
        union = len(self.first | self.second)
        return len(self.first & self.second) / union if union else 1.0


def attention_sheet(ctx: Context, shard: str) -> bytes | None:
    """Contact sheet of a shard's attention maps; None while there are none, or if no map is one square grid."""
    from vsel_platform.reports.thumbnails import contact_sheet

    looks = _looks(ctx, shard)
    ordered = sorted(looks, key=lambda sample: (looks[sample].overlap, sample))
    ends = ordered[:CANDIDATES], ordered[::-1][:CANDIDATES]
    texts = shard_excerpts(ctx, [shard], {sample for end in ends for sample in end})
    single = {sample for sample, text in texts.items() if len(text.image_ids) == 1}
    sections = []
    shown: set[str] = set()
    for heading, end in zip(("Least agreement", "Most agreement"), ends, strict=True):
        captions = [
            Caption(sample, f"{looks[sample].n_tokens} image tokens", f"overlap {looks[sample].overlap:.0%}")
            for sample in end
            if sample in single and sample not in shown
        ]
        chosen = distinct_pictures(captions, texts)
        shown |= {caption.sample_id for caption in chosen}
        sections.append((heading, tiles(ctx, chosen, texts, lambda sample, picture: mark(picture, looks[sample]))))
    return contact_sheet(
        sections,
        title=f"Where two models look, shard {shard}",
        subtitle="image tokens that gain most attention while the answer is given: first model orange, second blue, "
        "both dark",
    )


def _looks(ctx: Context, shard: str) -> dict[str, _Look]:
    """Rows with a square map of each model."""
    found: list[dict[str, tuple[frozenset[int], int]]] = []
    for key in attention.partitions(ctx, shard):
        pointer = ctx.store.pointer(attention.TABLE, key)
        if pointer is None:
            return {}
        table = ctx.store.read(pointer, ["sample_id", "top_tokens", "n_tokens"])
        rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
        found.append({sample: (frozenset(top), n) for sample, top, n in rows if math.isqrt(n) ** 2 == n})
    first, second = found
    return {
        sample: _Look(top, second[sample][0], n)
        for sample, (top, n) in first.items()
        if sample in second and second[sample][1] == n
    }


def mark(picture: "Image.Image", look: _Look) -> "Image.Image":
    """The picture with the cells of both models' top tokens under a coloured veil."""
    from PIL import Image, ImageColor

    side = math.isqrt(look.n_tokens)
    veil = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    first, second = (ImageColor.getrgb(colour)[:3] for colour in (WARNING, SELECTED))
    both = (40, 40, 48)
    for cell in look.first | look.second:
        colour = both if cell in look.first & look.second else first if cell in look.first else second
        veil.putpixel((cell % side, cell // side), (*colour, VEIL))
    size = (SIDE_PX, max(1, round(SIDE_PX * picture.height / picture.width)))
    large = picture.convert("RGBA").resize(size, Image.Resampling.BICUBIC)
    return Image.alpha_composite(large, veil.resize(size, Image.Resampling.NEAREST))
