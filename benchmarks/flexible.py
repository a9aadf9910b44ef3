"""VideoFlexTok against EVATok at equal geometry: tokenizers, encode and decode per flow step, and sampling, separately.

Clips, frames and pixels are those of the setting's EVATok; VideoFlexTok's network is the one of the same named size, on
principal components of pixels, whose cost is next to nothing. Weights are random, see `benchmarks.setting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.generating import CLASSES, Counted, generator_of, sampling_of, timed
from benchmarks.ratios import Ratio
from benchmarks.setting import Setting, noise, tokenizer_of, uniform_lengths
from evatok.generation.grammar import Grammar
from evatok.generation.order import OrderedGrammar
from evatok.generation.sampling import Sampling, sample
from evatok.generation.transformer import Condition, Generator, GeneratorConfig
from evatok.models.latents import PatchPCA
from evatok.tokenizers.codes import Codes
from evatok.tokenizers.videoflextok import FlexNetwork, VideoFlexTok, VideoFlexTokConfig

CODEBOOK = {"toy": 4375}
"""Codes of the generators' tokenizers, if not the size's own: a softmax over 64,000 would cost more."""
STEPS, SAMPLED = 4, 20
"""Further flow steps used to time one step, and those of a sample."""
BESIDE = "EVATok's tokenizer at the uniform row, against VideoFlexTok's"


def encoding(setting: Setting) -> list[Ratio]:
    """Seconds per batch of clips: EVATok's uniform row, VideoFlexTok's all tokens, and an eighth of them."""
    own, flexible, clips = tokenizer_of(setting), flexible_of(setting), noise(setting)
    lengths = uniform_lengths(setting)
    most, few = kept_of(flexible.config)
    works = [lambda: own.encode(clips, lengths), *(_encoding(flexible, clips, kept) for kept in (most, few))]
    plain, whole, part = setting.seconds(*works)
    return [
        Ratio("flextok_encode", "wall_seconds_all_tokens", plain, whole, f"{BESIDE} {most} tokens per latent frame"),
        Ratio("flextok_encode", "wall_seconds_few_tokens", plain, part, f"{BESIDE} {few} tokens per latent frame"),
    ]


def decoding(setting: Setting) -> list[Ratio]:
    """Seconds per batch of clips: a pass of EVATok's decoder, VideoFlexTok's one step, and each further one."""
    own, flexible, clips = tokenizer_of(setting), flexible_of(setting), noise(setting)
    codes, ratios = own.encode(clips, uniform_lengths(setting)), []
    for name, kept in zip(("all", "few"), kept_of(flexible.config), strict=True):
        tokens = _encoding(flexible, clips, kept)()
        plain, one, more = setting.seconds(
            lambda: own.decode(codes), *(_decoding(flexible, tokens, steps) for steps in (1, 1 + STEPS))
        )
        note = f"{BESIDE} {kept} tokens per latent frame"
        ratios.append(Ratio("flextok_decode", f"wall_seconds_one_step_{name}_tokens", plain, one, note))
        each = max((more - one) / STEPS, 1e-9)
        ratios.append(Ratio("flextok_decode", f"wall_seconds_per_further_step_{name}_tokens", plain, each, note))
    return ratios


def sampling(setting: Setting) -> list[Ratio]:
    """Generator and decoder apart: seconds per clip and per token of a router's lengths, against VideoFlexTok's."""
    grammar, flexible = Grammar.of(setting.tokenizer), flexible_of(setting)
    adaptive = Counted(sampling_of(setting, generator_of(setting, grammar), grammar, fixed=False))
    most, few = kept_of(flexible.config)
    module = flexible_generator(setting, flexible.config)
    works = {
        name: Counted(_sampling(setting, module, flexible.config, kept)) for name, kept in (("all", most), ("few", few))
    }
    theirs, *ours = timed(setting, [adaptive, *works.values()])
    ratios = []
    for (name, work), seconds in zip(works.items(), ours, strict=True):
        note = f"EVATok's generator at a router's lengths, against VideoFlexTok's of {name} tokens"
        note += f"; {setting.samples} samples"
        costs = theirs / setting.samples, seconds / setting.samples
        ratios.append(Ratio.of("flextok_generator", f"wall_seconds_per_clip_{name}_tokens", costs, note))
        costs = theirs / adaptive.tokens, seconds / work.tokens
        ratios.append(Ratio.of("flextok_generator", f"wall_seconds_per_token_{name}_tokens", costs, note))
    return ratios + _decoders(setting, flexible, few)


def _decoders(setting: Setting, flexible: VideoFlexTok, kept: int) -> list[Ratio]:
    """Compare the decoders' share of a sample: a pass of EVATok's, against all flow steps of VideoFlexTok's."""
    setting = replace(setting, batch=setting.samples)
    own, clips = tokenizer_of(setting), noise(setting)
    codes, tokens = own.encode(clips, uniform_lengths(setting)), _encoding(flexible, clips, kept)()
    seconds = setting.seconds(lambda: own.decode(codes), _decoding(flexible, tokens, SAMPLED))
    note = f"a pass of EVATok's decoder, against {SAMPLED} flow steps at {kept} tokens per latent frame"
    per_clip = [each / setting.samples for each in seconds]
    return [Ratio.of("flextok_sample_decoder", "wall_seconds_per_clip", per_clip, note)]


def flexible_of(setting: Setting) -> VideoFlexTok:
    """An untrained, frozen VideoFlexTok of the setting's clips, the same in every call."""
    torch.manual_seed(0)
    codec = PatchPCA(setting.flexible.channels)
    shape = setting.tokenizer
    config = replace(
        setting.flexible,
        frames=shape.frames,
        size=shape.size,
        codec=codec.kind,
        codec_sha256=codec.identity(),
        codebook_size=CODEBOOK.get(setting.size, setting.flexible.codebook_size),
    )
    return VideoFlexTok(codec, FlexNetwork(config)).eval().requires_grad_(False).to(setting.device)


def kept_of(config: VideoFlexTokConfig) -> tuple[int, int]:
    """All tokens per latent frame, and an eighth of them."""
    return config.registers, max(1, config.registers // 8)


def flexible_generator(setting: Setting, config: VideoFlexTokConfig) -> Generator:
    """An untrained, frozen generator of time-first sequences, in the precision of evaluations."""
    torch.manual_seed(0)
    grammar = OrderedGrammar.of(config, "time-first")
    symbols = {"vocabulary": grammar.vocabulary, "levels": 0, "longest": grammar.longest}
    module = Generator(GeneratorConfig.from_dict({**symbols, **setting.generator, "classes": CLASSES}))
    dtype = torch.bfloat16 if setting.bf16 and setting.device != "cpu" else torch.float32
    return module.eval().requires_grad_(False).to(setting.device, dtype)


def _sampling(setting: Setting, module: Generator, config: VideoFlexTokConfig, kept: int) -> Callable[[], Codes]:
    grammar = OrderedGrammar.of(config, "time-first", kept)
    seeds = list(range(setting.samples))
    classes = torch.tensor(seeds) % CLASSES
    return lambda: sample(module, grammar, Condition(classes), seeds, Sampling(), batch=64)


def _encoding(flexible: VideoFlexTok, clips: torch.Tensor, kept: int) -> Callable[[], Codes]:
    lengths = flexible.lengths(kept, len(clips)).to(clips.device)
    return lambda: flexible.encode(clips, lengths)


def _decoding(flexible: VideoFlexTok, codes: Codes, steps: int) -> Callable[[], torch.Tensor]:
    return lambda: flexible.decode(codes, steps=steps)
