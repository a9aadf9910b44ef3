"""Growth of cost with tokens, blocks, levels and batch: one exponent each, from a log-log fit.

The baseline of each is 1, proportional cost; a ratio above 1 means that cost grows more slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.ratios import Ratio, seconds_of, slope
from benchmarks.setting import Setting, noise, tokenizer_of
from evatok.search.tree import prefix_tree
from evatok.tokenizers.codes import expand_assignment


def growth(setting: Setting) -> list[Ratio]:
    """Exponents of a pass of the tokenizer, and of stage 2's tree over the number of levels."""
    shape = setting.tokenizer
    blocks = shape.candidates.blocks
    few = replace(setting, batch=max(1, setting.batch // 4))
    return [
        _fitted(
            few, "tokens", [blocks * level for level in shape.levels], [_pass(few, level) for level in shape.levels]
        ),
        _fitted(few, "blocks", [k * blocks for k in (1, 2, 4)], [_longer(few, k) for k in (1, 2, 4)]),
        _fitted(few, "batch", [batch for batch, _ in _batches(setting)], [work for _, work in _batches(setting)]),
        _levels(setting),
    ]


def _pass(setting: Setting, level: int) -> Callable[[], object]:
    tokenizer, clips = tokenizer_of(setting), noise(setting)
    rows = expand_assignment((level,) * setting.tokenizer.candidates.blocks, setting.batch).to(setting.device)
    return setting.within(lambda: tokenizer(clips, rows))


def _longer(setting: Setting, times: int) -> Callable[[], object]:
    longer = setting.with_tokenizer(frames=times * setting.tokenizer.frames)
    return _pass(longer, setting.uniform[0])


def _batches(setting: Setting) -> list[tuple[int, Callable[[], object]]]:
    batches = sorted({max(1, setting.batch // part) for part in (16, 8, 4, 2, 1)})
    return [(batch, _pass(replace(setting, batch=batch), setting.uniform[0])) for batch in batches]


def _levels(setting: Setting) -> Ratio:
    """The tree makes m + m^2 + ... + m^K visits, so its exponent is close to K."""
    counts = range(2, min(4, len(setting.tokenizer.levels)) + 1)
    works = []
    for count in counts:
        fewer = setting.with_tokenizer(levels=setting.tokenizer.levels[:count])
        tokenizer, clips = tokenizer_of(fewer), noise(fewer, clips=2)
        works.append(setting.within(lambda t=tokenizer, c=clips: prefix_tree(t, c)))  # type: ignore[misc]
    return _fitted(setting, "levels", list(counts), works)


def _fitted(setting: Setting, what: str, sizes: Sequence[float], works: Sequence[Callable[[], object]]) -> Ratio:
    repeats = min(3, setting.repeats)
    seconds = seconds_of(works, device=setting.device, repeats=repeats, at_least=setting.at_least)
    points = ", ".join(f"{size:g}: {each:.3g} s" for size, each in zip(sizes, seconds, strict=True))
    return Ratio(
        "growth", f"exponent_of_{what}", 1.0, slope(sizes, seconds), f"proportional, against measured; {points}"
    )
