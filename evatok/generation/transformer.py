"""A Llama-like transformer over the symbols of `evatok.generation.grammar`, for class-to-video and frame prediction.

It is written here, and not taken from transformers, because that Llama has no learned absolute positions, runs its
linear layers over the padding too, and its cache cannot drop finished rows in place.

A sequence is read behind a prefix: the condition's symbols (frame prediction), then one class, which may be the null
class. The output at the prefix's last place predicts the first length symbol. Training is packed: linear layers and
norms see the M places of a batch that are no padding, side by side; padding exists inside attention alone
(`evatok.generation.kv_cache`).

Legend: B sequences, N places of the longest, M places in all, P places of the prefix, D width, H heads, C = D / H,
V vocabulary, v a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from evatok.generation.grammar import Grammar, Sequences
from evatok.generation.kv_cache import Cache, Filling, Look, Packing, SideBySide, Stepping, stepping
from evatok.generation.symbol_loss import SymbolLoss

FILLED = 8
"""Features whose logits fill a CPU's registers, or whole multiples of them: 63 take 1.6 times as long as 64."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Shape of a generator.

    Attributes:
        vocabulary: V, codes and length symbols.
        levels: how many of the vocabulary's last symbols name lengths.
        longest: symbols of the longest sequence.
        classes: classes that can be asked for; the table has one row more, the null class.
        condition: symbols in front of the class, for frame prediction.
        positions: "learned", a table, or "rope", rotated queries and keys.
        dropout: of embeddings and residual branches, while training.
        class_dropout: share of classes replaced by the null class, while training.
    """

    vocabulary: int
    levels: int
    longest: int
    width: int
    layers: int
    heads: int
    classes: int = 0
    condition: int = 0
    positions: str = "learned"
    dropout: float = 0.1
    class_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.positions not in ("learned", "rope"):
            raise ValueError(f"unknown positions {self.positions!r}: learned or rope")
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} does not give {self.heads} heads an even share each")
        if not 0 < self.levels < self.vocabulary:
            raise ValueError(f"{self.levels} of {self.vocabulary} symbols cannot name lengths: some, not all, must")

    @classmethod
    def of(cls, grammar: Grammar, size: str, **others: Any) -> GeneratorConfig:
        """A size of GENERATOR_SIZES for a grammar; `others` are further fields, such as classes."""
        if size not in GENERATOR_SIZES:
            raise ValueError(f"unknown generator size {size!r}: {', '.join(GENERATOR_SIZES)}")
        symbols = {"vocabulary": grammar.vocabulary, "levels": grammar.levels, "longest": grammar.longest}
        return cls(**{**symbols, **GENERATOR_SIZES[size], **others})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def prefix(self) -> int:
        """P, places in front of the first length symbol."""
        return self.condition + 1

    @property
    def places(self) -> int:
        """Places of the longest sequence with its prefix."""
        return self.prefix + self.longest

    @property
    def hidden(self) -> int:
        """Width of the MLP: two thirds of four widths, rounded up to 256."""
        return 256 * math.ceil(8 * self.width // 3 / 256)


GENERATOR_SIZES: dict[str, dict[str, int]] = {
    "toy": {"width": 256, "layers": 4, "heads": 4},  # one CPU core
    "small": {"width": 512, "layers": 8, "heads": 8},  # one GPU, half an hour
    "B": {"width": 768, "layers": 12, "heads": 12},  # 99M, the paper's ablations
    "L": {"width": 1024, "layers": 24, "heads": 16},  # 327M
    "XL": {"width": 1280, "layers": 30, "heads": 20},  # 633M
}


@dataclass(frozen=True)
class Condition:
    """What sequences are asked for. At least one of the two is given.

    Attributes:
        classes: (B,) int64, where `config.classes` itself is the null class; None for the null class everywhere.
        symbols: (B, C) int64 symbols of the condition in frame prediction.
    """

    classes: torch.Tensor | None = None
    symbols: torch.Tensor | None = None

    def __post_init__(self) -> None:
        given = [len(rows) for rows in (self.classes, self.symbols) if rows is not None]
        if not given or min(given) != max(given):
            raise ValueError(f"a condition needs classes, symbols, or as many of one as of the other, got {given}")

    def __len__(self) -> int:
        rows = self.symbols if self.classes is None else self.classes
        assert rows is not None
        return len(rows)

    @classmethod
    def joined(cls, parts: Sequence[Condition]) -> Condition:
        """One behind the other, all with the same of the two given."""
        classes = [part.classes for part in parts if part.classes is not None]
        symbols = [part.symbols for part in parts if part.symbols is not None]
        return cls(torch.cat(classes) if classes else None, torch.cat(symbols) if symbols else None)

    def keep(self, rows: torch.Tensor) -> Condition:
        """Sequences `rows` (b,) alone, in that order."""
        return Condition(*(None if given is None else given[rows] for given in (self.classes, self.symbols)))

    def to(self, device: torch.device | str) -> Condition:
        return Condition(*(None if given is None else given.to(device) for given in (self.classes, self.symbols)))


class Layer(nn.Module):
    """Attention and a gated MLP, pre-norm, without biases."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        self.heads = config.heads
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x_MD: torch.Tensor, turns: torch.Tensor | None, number: int, look: Look) -> torch.Tensor:
        q, k, v = self.query_key_value(self.attention_norm(x_MD)).unflatten(-1, (3, self.heads, -1)).unbind(1)
        if turns is not None:
            q, k = _turned(q, turns), _turned(k, turns)
        x_MD = x_MD + self.drop(self.out(look(number, q, k, v)))
        gate, up = self.gate_up(self.mlp_norm(x_MD)).chunk(2, dim=-1)
        return x_MD + self.drop(self.down(F.silu(gate) * up))


class Generator(nn.Module):
    """Sequences to logits of every symbol, all at once in training, one symbol at a time from a cache in sampling."""

    turns: torch.Tensor | None

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        # One table: symbols, then classes, then the null class.
        self.embedding = nn.Embedding(config.vocabulary + config.classes + 1, config.width)
        learned = config.positions == "learned"
        self.position = nn.Parameter(torch.empty(config.places, config.width)) if learned else None
        self.register_buffer("turns", None if learned else _turns(config), persistent=False)
        self.drop = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            for last in (layer.out, layer.down):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * self.config.layers))

    def prefix(self, condition: Condition, drop: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of the embedding table (B, P) in front of the sequences; `drop` (B,) is True for the null class.

        Raises:
            ValueError: an unknown class, or another number of condition symbols than the model's.
        """
        config = self.config
        classes = condition.classes
        if classes is None:
            assert condition.symbols is not None
            classes = condition.symbols.new_full((len(condition),), config.classes)
        if bool(((classes < 0) | (classes > config.classes)).any()):
            raise ValueError(f"classes {classes.tolist()}: the generator knows classes 0 to {config.classes - 1}")
        if drop is not None:
            classes = classes.masked_fill(drop, config.classes)
        symbols = classes.new_zeros(len(classes), 0) if condition.symbols is None else condition.symbols
        if symbols.shape[1] != config.condition:
            raise ValueError(f"the condition has {symbols.shape[1]} symbols, the generator needs {config.condition}")
        if symbols.numel() and not 0 <= int(symbols.min()) <= int(symbols.max()) < config.vocabulary:
            raise ValueError(f"the condition has a symbol outside the vocabulary of {config.vocabulary}")
        return torch.cat((symbols, config.vocabulary + classes[:, None]), 1)

    def forward(self, sequences: Sequences, condition: Condition, drop: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (M, V) that predict each symbol of each sequence, one sequence after the other; M = counts' sum.

        Raises:
            ValueError: sequences longer than the model's longest, or a condition that `prefix` refuses.
        """
        return self.head(self._features(sequences, condition, drop))

    def loss(
        self, sequences: Sequences, condition: Condition, drop: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean cross-entropy of a symbol, in nats, in float32, and its terms.

        Args:
            drop: (B,) True where the null class replaces the own one. None while training draws it with
                `config.class_dropout`; None in evaluation replaces none.

        Returns:
            The scalar, and "codes" and "lengths", cross-entropies of the two kinds of symbols, and "accuracy", the
            share of codes whose most probable symbol is right.
        """
        if drop is None and self.training:
            drop = torch.rand(len(condition), device=sequences.counts.device) < self.config.class_dropout
        x_MD, target = self._features(sequences, condition, drop), sequences.symbols[sequences.valid]
        mean, losses, right = SymbolLoss.apply(x_MD, self.head.weight, target, torch.is_grad_enabled())
        is_code = target < self.config.vocabulary - self.config.levels
        terms = {
            "codes": losses[is_code].mean(),
            "lengths": losses[~is_code].mean(),
            "accuracy": right[is_code].float().mean(),
        }
        return mean, terms

    def _features(self, sequences: Sequences, condition: Condition, drop: torch.Tensor | None) -> torch.Tensor:
        """Normed features (M, D), of the places that predict a symbol."""
        longest = int(sequences.counts.max())
        if longest > self.config.longest:
            raise ValueError(f"a sequence of {longest} symbols, the generator's longest has {self.config.longest}")
        rows_BN = torch.cat((self.prefix(condition, drop), sequences.symbols[:, : longest - 1]), 1)
        packing = Packing(sequences.counts + self.config.prefix - 1, rows_BN.shape[1])
        x_MD = self._trunk(rows_BN.flatten()[packing.index], packing.places, packing.look)
        return self.norm(x_MD[packing.places >= self.config.prefix - 1])

    def _trunk(self, rows: torch.Tensor, places: torch.Tensor, look: Look) -> torch.Tensor:
        """Features (M, D) of rows (M,) of the embedding table at places (M,)."""
        x_MD = self.embedding(rows)
        if self.position is not None:
            x_MD = x_MD + self.position[places]
        turns = None if self.turns is None else self.turns[:, places, None]
        x_MD = self.drop(x_MD)
        for number, layer in enumerate(self.layers):
            x_MD = layer(x_MD, turns, number, look)
        return x_MD

    def logits(self, x_BD: torch.Tensor, symbols: slice = slice(None)) -> torch.Tensor:
        """Logits (B, v) of `symbols`, all or a part of the vocabulary, behind the few features (B, D) of a step."""
        weight = self.head.weight[symbols]
        if x_BD.device.type != "cpu" or x_BD.dtype != torch.float32:
            return F.linear(x_BD, weight)
        # A CPU multiplies a tall matrix by few columns up to five times faster than few rows by a wide one.
        return (weight @ x_BD.T).T

    def cache(self, rows: int, *, even: bool = False) -> Cache:
        """An empty cache for `rows` sequences, in the weights' precision; `even` if they will always move in step."""
        config, like = self.config, self.head.weight
        shape = (config.layers, 2, rows, config.heads, config.places, config.width // config.heads)
        # A masked place that held a NaN would still spoil the sum over places; even sequences need no mask.
        made = torch.empty if even else torch.zeros
        return Cache(made(shape, dtype=like.dtype, device=like.device))

    @torch.no_grad()
    def last(self, rows_BN: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Features (B, D), for `logits`, behind rows (B, N) of the embedding table, prefix and symbols.

        Where a cache is given, these sequences are added behind those in use.
        """
        batch, places = rows_BN.shape
        where = torch.arange(places, device=rows_BN.device).repeat(batch)
        x_MD = self._trunk(rows_BN.flatten(), where, Filling(batch, cache).look)
        if cache is not None:
            cache.filled += [places] * batch
        return self.norm(x_MD[places - 1 :: places])

    @torch.no_grad()
    def fill(self, rows_BN: torch.Tensor, cache: Cache) -> None:
        """Read rows (B, N) of the embedding table into the cache, N from 0 up, behind the sequences in use."""
        batch, places = rows_BN.shape
        if places:
            where = torch.arange(places, device=rows_BN.device).repeat(batch)
            self._trunk(rows_BN.flatten(), where, Filling(batch, cache).look)
        cache.filled += [places] * batch

    @torch.no_grad()
    def step(self, symbols: torch.Tensor, *caches: Cache) -> torch.Tensor:
        """Features (b, D) behind one more row (b,) of the embedding table of every sequence in use, cache after cache.

        All layers but attention see the sequences of all caches at once.
        """
        places = [place for cache in caches for place in cache.filled]
        looks = [stepping(cache) for cache in caches]
        for cache in caches:
            cache.filled = [place + 1 for place in cache.filled]
        look = looks[0].look if len(looks) == 1 else SideBySide(looks, [len(cache.filled) for cache in caches]).look
        return self.norm(self._trunk(symbols, torch.tensor(places, device=symbols.device), look))

    @torch.no_grad()
    def step_at(
        self, symbols: torch.Tensor, cache: Cache, places: torch.Tensor, read: int, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The same with the places as a tensor, so that every shape is known when a CUDA graph is captured.

        Args:
            places: (1,) that of all sequences, or (b,) that of each.
            read: places of the cache that attention reads.
            mask: broadcastable to (b, H, 1, read), True for those of them that hold something, None where all do.
        """
        stepping = Stepping(cache.values[:, :, : len(symbols)], places, read, mask)
        return self.norm(self._trunk(symbols, places.expand(len(symbols)), stepping.look))


def _turns(config: GeneratorConfig) -> torch.Tensor:
    """(2, places, C) cosines and sines of rotary positions, base 10,000; both halves of C have the same angles."""
    half = config.width // config.heads // 2
    frequencies = 10_000.0 ** (-torch.arange(half) / half)
    angles = (torch.arange(config.places)[:, None] * frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin()))


def _turned(x_MHC: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Queries or keys (M, H, C) turned by their places' angles (2, M, 1, C)."""
    first, second = x_MHC.chunk(2, dim=-1)
    return (x_MHC * turns[0] + torch.cat((-second, first), -1) * turns[1]).to(x_MHC.dtype)
