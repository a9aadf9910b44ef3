"""Precision, attention kernels, torch.compile: the gain of each, and its cost in quality."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.ratios import Ratio, interleaved, once, seconds_of
from benchmarks.setting import Setting, noise, real_clips, router_lengths, tokenizer_of, uniform_lengths
from evatok.metrics.pixels import psnr
from evatok.models.attention import attend
from evatok.storage.environment import REPOSITORY
from evatok.tokenizers.evatok import TOKENIZER_SIZES, AdaptiveTokenizer
from evatok.tokenizers.layout import Layout, patch_to_patch

PROXY = REPOSITORY / "results" / "checkpoints" / "proxy-toy.safetensors"
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def precision(setting: Setting) -> list[Ratio]:
    """float32 against bfloat16 autocast: seconds per pass, and PSNR of the reconstructions.

    The PSNR is that of the shipped proxy on embedded clips at toy size, of an untrained network at other sizes.
    """
    tokenizer, clips, lengths = tokenizer_of(setting), noise(setting), router_lengths(setting)

    def work() -> object:
        return tokenizer(clips, lengths, groups=setting.groups)

    plain, ours = interleaved(
        setting.within(work, bf16=False),
        setting.within(work, bf16=True),
        device=setting.device,
        repeats=setting.repeats,
        at_least=setting.at_least,
    )
    return [Ratio("bf16", "wall_seconds", plain, ours, "a pass in float32, against bfloat16"), quality(setting)]


def quality(setting: Setting) -> Ratio:
    """PSNR of reconstructions under the uniform assignment, in float32 and in bfloat16."""
    trained = setting.tokenizer == TOKENIZER_SIZES["toy"]
    tokenizer = AdaptiveTokenizer.load(PROXY, setting.device) if trained else tokenizer_of(setting)
    clips = real_clips(setting, min(setting.batch, 32))
    lengths, values = uniform_lengths(setting)[: len(clips)], []
    for bf16 in (False, True):
        with torch.no_grad(), setting.autocast(bf16):
            values.append(float(psnr(clips, tokenizer(clips, lengths).clips.float().clamp(0, 1)).mean()))
    whose = "of the shipped proxy" if trained else "of an untrained network"
    return Ratio.of(
        "bf16", "psnr_db", values, f"{whose} on {len(clips)} embedded clips, float32 and bfloat16; more is better"
    )


def attention(setting: Setting) -> list[Ratio]:
    """The decoder's masked self-attention: PyTorch's kernels, and the one used here.

    Forward only, and with the backward pass. The baseline is what is not used: on a CPU PyTorch's fused kernel in
    bfloat16, explicit products in float32 and on a GPU; kernels that do not accept a mask are skipped.
    """
    ratios = []
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        for backward in (False, True):
            ways = _ways(setting.device, dtype)
            inputs = _queries_keys_values(setting, dtype, backward)
            works = {way: _attention_pass(attention, inputs, backward) for way, attention in ways.items()}
            works = {way: work for way, work in works.items() if way in ("baseline", "ours") or _runs(work)}
            seconds = seconds_of(
                list(works.values()), device=setting.device, repeats=setting.repeats, at_least=setting.at_least
            )
            timed = dict(zip(works, seconds, strict=True))
            metric = "wall_seconds_with_backward" if backward else "wall_seconds"
            note = "PyTorch's fused kernel" if ways["baseline"] is fused else "written out"
            ratios += [
                Ratio(f"attention_{name}" + ("" if way == "ours" else f"_{way}"), metric, timed["baseline"], each, note)
                for way, each in timed.items()
                if way != "baseline"
            ]
    return ratios


def compiled(setting: Setting) -> list[Ratio]:
    """torch.compile of encoder and decoder under the uniform assignment, and its first call, which compiles."""
    tokenizer, clips, lengths = tokenizer_of(setting), noise(setting), uniform_lengths(setting)
    plain = setting.within(lambda: tokenizer(clips, lengths))
    faster = tokenizer_of(setting)
    faster.encoder.forward = torch.compile(faster.encoder.forward)  # type: ignore[method-assign]
    faster.decoder.forward = torch.compile(faster.decoder.forward)  # type: ignore[method-assign]
    ours = setting.within(lambda: faster(clips, lengths))
    plain()
    first = [once(work, setting.device) for work in (plain, ours)]
    seconds = interleaved(plain, ours, device=setting.device, repeats=setting.repeats, at_least=setting.at_least)
    return [
        Ratio.of("compile", "wall_seconds", seconds, "a pass as it is, against a compiled one"),
        Ratio.of("compile", "first_call_seconds", first, "a pass as it is, against the compiled one's first"),
    ]


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Explicit products, with masked scores replaced before the softmax."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) @ v


def fused(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """PyTorch's default choice of kernel."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _by(backend: SDPBackend) -> Attend:
    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel(backend):
            return fused(q, k, v, mask)

    return attention


def _ways(device: str, dtype: torch.dtype) -> dict[str, Attend]:
    if device != "cuda":
        return {"baseline": fused if dtype == torch.bfloat16 else written_out, "ours": attend}
    kernels = {
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    return {"baseline": written_out, "ours": attend, **{name: _by(backend) for name, backend in kernels.items()}}


def _queries_keys_values(
    setting: Setting, dtype: torch.dtype, gradient: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = setting.tokenizer
    positions = shape.candidates.blocks * shape.patches
    size = (min(setting.batch, 16), shape.decoder_heads, positions, shape.decoder_width // shape.decoder_heads)
    torch.manual_seed(0)
    q, k, v = (torch.randn(size).to(setting.device, dtype).requires_grad_(gradient) for _ in range(3))
    mask = patch_to_patch(Layout.of(uniform_lengths(setting)), shape.patches)
    assert isinstance(mask, torch.Tensor)
    return q, k, v, mask


def _attention_pass(
    attention: Attend, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], backward: bool
) -> Callable[[], object]:
    def forward() -> object:
        with torch.no_grad():
            return attention(*inputs)

    def both() -> None:
        torch.autograd.grad(attention(*inputs).sum(), inputs[:3])

    return both if backward else forward


def _runs(work: Callable[[], object]) -> bool:
    """Whether a kernel accepts these inputs; PyTorch only raises RuntimeError if not."""
    try:
        work()
    except RuntimeError:
        return False
    return True
