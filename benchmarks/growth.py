"""Growth of cost with tokens, blocks, levels, batch and clips: one exponent each, from a log-log fit.

The baseline of each is 1, proportional cost; a ratio above 1 means that cost grows more slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from benchmarks.ratios import Ratio, peak_bytes, seconds_of, slope
from benchmarks.setting import Setting, noise, tokenizer_of
from evatok.search.tree import prefix_tree
from evatok.tokenizers.codes import expand_assignment


def growth(setting: Setting) -> list[Ratio]:
    """Exponents of a pass of the tokenizer, in seconds and bytes, and of stage 2's tree over levels and clips."""
    shape = setting.tokenizer
    blocks = shape.candidates.blocks
    few = replace(setting, batch=max(1, setting.batch // 4))
    return [
        _fitted(
            few, "tokens", [blocks * level for level in shape.levels], [_pass(few, level) for level in shape.levels]
        ),
        _fitted(few, "blocks", [k * blocks for k in (1, 2, 4)], [_longer(few, k) for k in (1, 2, 4)]),
        _fitted(few, "batch", [batch for batch, _ in _batches(setting)], [work for _, work in _batches(setting)]),
        _memory(setting),
        _levels(setting),
        _clips(setting),
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


def _clips(setting: Setting) -> Ratio:
    """The tree of 2 levels over clips; below ROWS of them it walks sibling branches side by side."""
    fewer = setting.with_tokenizer(levels=setting.tokenizer.levels[:2])
    tokenizer, counts = tokenizer_of(fewer), (2, 4, 8)
    made = [noise(fewer, clips=count) for count in counts]
    works = [fewer.within(partial(prefix_tree, tokenizer, clips)) for clips in made]
    return _fitted(setting, "clips", counts, works)


def _memory(setting: Setting) -> Ratio:
    """Peak bytes of a pass, over the batch; workspaces of kernels count on a GPU only."""
    batches = _batches(setting)[-3:]
    sizes, peaks = [batch for batch, _ in batches], [peak_bytes(work, setting.device) for _, work in batches]
    points = ", ".join(f"{size}: {peak / 2**20:.0f} MiB" for size, peak in zip(sizes, peaks, strict=True))
    note = f"proportional, against measured; {points}"
    return Ratio("growth", "exponent_of_memory", 1.0, slope(sizes, peaks), note)


def _fitted(setting: Setting, what: str, sizes: Sequence[float], works: Sequence[Callable[[], object]]) -> Ratio:
    repeats = min(3, setting.repeats)
    seconds = seconds_of(works, device=setting.device, repeats=repeats, at_least=setting.at_least)
    points = ", ".join(f"{size:g}: {each:.3g} s" for size, each in zip(sizes, seconds, strict=True))
    return Ratio(
        "growth", f"exponent_of_{what}", 1.0, slope(sizes, seconds), f"proportional, against measured; {points}"
    )
