"""The tokenizer: encoding, decoding and training at unequal lengths."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange

from benchmarks.ratios import Ratio, interleaved, peak_bytes
from benchmarks.setting import Setting, noise, router_lengths, tokenizer_of, uniform_lengths
from evatok.evaluation import flops
from evatok.storage import allocator
from evatok.tokenizers.evatok import AdaptiveTokenizer
from evatok.training import losses

PADDED = "a batch of unequal lengths, padded to its longest clip, against groups of like length"
SAVING = "a batch at the uniform row of the middle level, against the router's lengths in groups of like length"


def encoding(setting: Setting) -> list[Ratio]:
    """Uniform lengths, the router's padded, the router's in groups (on a GPU, also in one row), and the constant part.

    The encoder's queries depend on the number of tokens: their self-attention, their side of the cross-attention and
    their MLPs. Patch embedding, pooling, and the references' keys and values do not; their time is measured separately
    and subtracted.
    """
    tokenizer, clips = tokenizer_of(setting), noise(setting)
    uniform, lengths = uniform_lengths(setting), router_lengths(setting)
    seconds = setting.seconds(
        lambda: tokenizer.encode(clips, uniform),
        lambda: tokenizer.encode(clips, lengths),
        lambda: tokenizer.encode(clips, lengths, groups=setting.groups),
        lambda: without_tokens(tokenizer, clips),
    )
    ratios = _three("encode", *seconds[:3])
    plain, ours = (each - seconds[3] for each in (seconds[0], seconds[2]))
    if min(plain, ours) > 0:
        tokens = [float(row.sum(1).float().mean()) * setting.batch for row in (uniform, lengths)]
        note = (
            "seconds a token of what depends on tokens, uniform against the router's lengths; target: 1 / 1.1 or more"
        )
        ratios.append(
            Ratio("encode_token_dependent", "wall_seconds_per_token", plain / tokens[0], ours / tokens[1], note)
        )
        share = "a whole pass at the uniform row, against the part that does not depend on tokens"
        ratios.append(Ratio("encode_token_dependent", "wall_seconds_without_tokens", seconds[0], seconds[3], share))
    return ratios + _sparse(
        setting,
        "encode",
        lambda: tokenizer.encode(clips, lengths, groups=setting.groups),
        lambda: tokenizer.encode(clips, lengths, sparse=True),
    )


def decoding(setting: Setting) -> list[Ratio]:
    """Decoding at the same lengths; only the decoder's references depend on tokens, its queries are patches."""
    tokenizer, clips = tokenizer_of(setting), noise(setting)
    plain, codes = (tokenizer.encode(clips, rows) for rows in (uniform_lengths(setting), router_lengths(setting)))
    seconds = setting.seconds(
        lambda: tokenizer.decode(plain),
        lambda: tokenizer.decode(codes),
        lambda: tokenizer.decode(codes, groups=setting.groups),
    )
    return _three("decode", *seconds) + _sparse(
        setting,
        "decode",
        lambda: tokenizer.decode(codes, groups=setting.groups),
        lambda: tokenizer.decode(codes, sparse=True),
    )


def training(setting: Setting) -> list[Ratio]:
    """A training step on L1 with AdamW, padded and in groups: seconds, memory and, on a GPU, utilisation.

    Lengths are a router's (stage 4), or drawn from all candidates (stage 1).
    """
    candidates = setting.tokenizer.candidates
    drawn = candidates.sample(setting.batch, torch.Generator().manual_seed(0)).to(setting.device)
    ratios = []
    for row, lengths in (("training_step", router_lengths(setting)), ("training_step_random_lengths", drawn)):
        padded, grouped = (step_of(setting, lengths, groups) for groups in (1, setting.groups))
        plain, ours = interleaved(
            padded, grouped, device=setting.device, repeats=setting.repeats, at_least=setting.at_least
        )
        ratios.append(Ratio(row, "wall_seconds", plain, ours, PADDED))
        memory = [max(1, peak_bytes(step, setting.device)) for step in (padded, grouped)]
        ratios.append(Ratio.of(row, "peak_bytes", memory, PADDED))
        ratios += _utilisation(setting, row, lengths, ours)
    return ratios


def memory(setting: Setting) -> list[Ratio]:
    """A training step on a CPU whose freed memory goes back to the kernel, against one that keeps it.

    None on a GPU, and where memory is not kept (`keep_freed_memory`).
    """
    if setting.device != "cpu" or not allocator.keep_freed_memory():
        return []
    step = step_of(setting, uniform_lengths(setting), setting.groups)

    def under(policy: Callable[[], bool]) -> Callable[[], object]:
        def run() -> None:
            policy()
            step()

        return run

    policies = allocator.return_freed_memory, allocator.keep_freed_memory
    try:
        seconds = interleaved(*map(under, policies), repeats=setting.repeats, at_least=setting.at_least)
    finally:
        allocator.return_freed_memory()  # so that what is measured next does not depend on this
    note = "freed memory returned to the kernel beyond glibc's largest thresholds of its own, against kept"
    return [Ratio.of("freed_memory", "wall_seconds", seconds, note)]


def without_tokens(tokenizer: AdaptiveTokenizer, clips: torch.Tensor) -> object:
    """The part of the encoder that does not depend on the number of tokens."""
    encoder = tokenizer.encoder
    patches = encoder.embed(clips)
    references = rearrange(patches, "b k p d -> b (k p) d")
    return encoder.queries(patches), [layer.reference_keys_values(references) for layer in encoder.layers]


def step_of(setting: Setting, lengths: torch.Tensor, groups: int) -> Callable[[], object]:
    """Make a training step that can be repeated."""
    tokenizer, clips = tokenizer_of(setting).train().requires_grad_(True), noise(setting)
    fused = setting.device == "cuda" or None
    optimiser = torch.optim.AdamW(tokenizer.parameters(), lr=1e-5, fused=fused)

    def step() -> None:
        with setting.autocast():
            made = tokenizer(clips, lengths, groups=groups)
        loss = losses.l1(clips, made.clips) + made.quantised.loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def _utilisation(setting: Setting, row: str, lengths: torch.Tensor, seconds: float) -> list[Ratio]:
    peak = flops.peak_flops(torch.cuda.get_device_name()) if setting.device == "cuda" else None
    if peak is None:
        return []
    totals = lengths.sum(1).cpu().numpy()
    useful = flops.tokenizer_operations(setting.tokenizer, totals, training=True) * len(totals)
    note = "model FLOPs utilisation: seconds the useful operations take at the GPU's peak, against the step in groups"
    return [Ratio(row, "seconds_at_peak", useful / peak, seconds, note)]


def _three(row: str, uniform: float, padded: float, grouped: float) -> list[Ratio]:
    return [
        Ratio(row, "wall_seconds_uniform_to_router", uniform, grouped, SAVING),
        Ratio(row, "wall_seconds_padded_to_grouped", padded, grouped, PADDED),
    ]


def _sparse(setting: Setting, row: str, grouped: Callable[[], object], sparse: Callable[[], object]) -> list[Ratio]:
    """All clips in one row without padding; only timed on a GPU, as other kernels also compute what the mask hides."""
    if setting.device != "cuda":
        return []
    note = "groups of like length, against all clips in one row under flex_attention"
    return [Ratio.of(row, "wall_seconds_grouped_to_sparse", setting.seconds(grouped, sparse), note)]
