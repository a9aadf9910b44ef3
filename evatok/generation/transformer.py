"""A Llama-like transformer over the symbols of `evatok.generation.grammar`, for class-to-video and frame prediction.

The Llama of transformers does not serve: it has no learned absolute positions, runs its linear layers over the padding
too, and its cache cannot evict finished sequences in place.

A sequence follows a prefix: the condition's symbols (frame prediction), then one class, which may be the null class.
The output at the prefix's last position predicts the first length symbol. Training is packed: linear layers and norms
see only the M positions of a batch that are not padding; padding exists only inside attention
(`evatok.generation.kv_cache`).

Legend: B sequences, N positions of the longest, M positions in all, P positions of the prefix, D width, H heads,
C = D / H, V vocabulary, v a part of it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from evatok.generation.condition import Condition
from evatok.generation.config import GENERATOR_SIZES, GeneratorConfig
from evatok.generation.grammar import Sequences
from evatok.generation.kv_cache import Attend, Decode, GroupedDecode, KVCache, PackedAttention, Prefill
from evatok.generation.plan import Plan
from evatok.generation.symbol_loss import SymbolLoss
from evatok.generation.text import TextEncoder
from evatok.models.dropout import Dropout
from evatok.storage import ranks

__all__ = ["GENERATOR_SIZES", "Condition", "Generator", "GeneratorConfig"]


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
        self.drop = Dropout(config.dropout)

    def forward(self, x_MD: torch.Tensor, rotations: torch.Tensor | None, number: int, attend: Attend) -> torch.Tensor:
        q, k, v = self.query_key_value(self.attention_norm(x_MD)).unflatten(-1, (3, self.heads, -1)).unbind(1)
        if rotations is not None:
            q, k = _rotate(q, rotations), _rotate(k, rotations)
        x_MD = x_MD + self.drop(self.out(attend(number, q, k, v)))
        gate, up = self.gate_up(self.mlp_norm(x_MD)).chunk(2, dim=-1)
        return x_MD + self.drop(self.down(F.silu(gate) * up))


class Generator(nn.Module):
    """Map sequences to logits: of all symbols at once in training, one at a time with a KV cache in sampling."""

    rotations: torch.Tensor | None

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        # One table: symbols, then classes, then the null class.
        self.embedding = nn.Embedding(config.vocabulary + config.classes + 1, config.width)
        learned = config.positions == "learned"
        self.position = nn.Parameter(torch.empty(config.context, config.width)) if learned else None
        self.register_buffer("rotations", None if learned else _rotations(config), persistent=False)
        self.text = TextEncoder(config) if config.text else None
        self.drop = Dropout(config.dropout)
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
            for branch_output in (layer.out, layer.down):
                nn.init.normal_(branch_output.weight, std=0.02 / math.sqrt(2 * self.config.layers))

    def prefix(self, condition: Condition, drop: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of the embedding table (B, P) that precede the sequences.

        Rows past its end are those of `captioned`, one after the other.

        Args:
            drop: (B,) True where the null class replaces the class.

        Raises:
            ValueError: an unknown class, or the wrong number of condition symbols.
        """
        self.check(condition)
        return self._prefix(condition, drop)

    def check(self, condition: Condition) -> None:
        """Raise ValueError for an unknown class, or the wrong number of condition symbols."""
        config, classes, symbols = self.config, condition.classes, condition.symbols
        if classes is not None and bool(((classes < 0) | (classes > config.classes)).any()):
            raise ValueError(f"classes {classes.tolist()}: the generator knows classes 0 to {config.classes - 1}")
        given = 0 if symbols is None else symbols.shape[1]
        if given != config.condition:
            raise ValueError(f"the condition has {given} symbols, the generator needs {config.condition}")
        known = symbols is None or not symbols.numel()
        if symbols is not None and not (known or 0 <= int(symbols.min()) <= int(symbols.max()) < config.vocabulary):
            raise ValueError(f"the condition has a symbol outside the vocabulary of {config.vocabulary}")

    def _prefix(self, condition: Condition, drop: torch.Tensor | None) -> torch.Tensor:
        config = self.config
        classes, device = condition.classes, condition.any.device
        if classes is None:
            classes = torch.full((len(condition),), config.classes, device=device)
        if drop is not None:
            classes = classes.masked_fill(drop, config.classes)
        symbols = classes.new_zeros(len(classes), 0) if condition.symbols is None else condition.symbols
        slots = torch.arange(len(classes) * config.text, device=device).view(len(classes), config.text)
        return torch.cat((symbols, self.embedding.num_embeddings + slots, config.vocabulary + classes[:, None]), 1)

    def captioned(self, condition: Condition, drop: torch.Tensor | None = None) -> torch.Tensor | None:
        """Vectors (B * S, D) of the captions; None for a generator without.

        Raises:
            ValueError: captions for a generator that reads none, none for one that does, or unfit ones.
        """
        if (self.text is None) != (condition.text is None):
            raise ValueError("captions go with generators that read them, and only with those")
        if self.text is None or condition.text is None:
            return None
        vectors: torch.Tensor = self.text(condition.text, drop)
        return vectors.flatten(0, 1)

    def forward(self, sequences: Sequences, condition: Condition, drop: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (M, V) that predict each symbol, sequence after sequence; M is the sum of the counts.

        Raises:
            ValueError: a sequence longer than `config.longest`, or a condition that `prefix` rejects.
        """
        return self.head(self._features(sequences, condition, drop, self.plan(sequences, condition)))

    def plan(self, sequences: Sequences, condition: Condition) -> Plan:
        """Check a batch, and work out where its symbols lie.

        Raises:
            ValueError: a sequence longer than `config.longest`, or a condition that `prefix` rejects.
        """
        self.check(condition)
        longest = int(sequences.counts.max())
        if longest > self.config.longest:
            raise ValueError(f"a sequence has {longest} symbols, the generator takes at most {self.config.longest}")
        return Plan.of(sequences, self.config.prefix, self.config.vocabulary - self.config.levels)

    def loss(
        self,
        sequences: Sequences,
        condition: Condition,
        drop: torch.Tensor | None = None,
        plan: Plan | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean cross-entropy per symbol in nats, float32, and its terms.

        Args:
            drop: (B,) True where the null class replaces the class. None: drawn with `config.class_dropout` while
                training, none replaced in evaluation.
            plan: of the same batch, built before it moved to a GPU, to avoid a synchronisation.

        Returns:
            The scalar loss, and the terms "codes" and "lengths", the cross-entropies of the two kinds of symbols (no
            "lengths" without length symbols), and "accuracy", the share of codes whose most probable symbol is correct.
        """
        if drop is None and self.training:
            drop = torch.rand(len(condition), device=sequences.counts.device) < self.config.class_dropout
        plan = self.plan(sequences, condition) if plan is None else plan
        x_MD, target = self._features(sequences, condition, drop, plan), sequences.symbols.flatten()[plan.symbols]
        mean, losses, correct = SymbolLoss.apply(x_MD, self.head.weight, target, torch.is_grad_enabled())
        codes, lengths = len(plan.codes), len(plan.lengths)
        terms = {"codes": ranks.mean(losses[plan.codes].mean(), codes)}
        if self.config.levels:
            terms["lengths"] = ranks.mean(losses[plan.lengths].mean(), lengths)
        terms["accuracy"] = ranks.mean(correct[plan.codes].float().mean(), codes)
        return ranks.mean(mean, codes + lengths), terms

    def _features(
        self, sequences: Sequences, condition: Condition, drop: torch.Tensor | None, plan: Plan
    ) -> torch.Tensor:
        """Normalised features (M, D) of the positions that predict a symbol."""
        rows_BN = torch.cat((self._prefix(condition, drop), sequences.symbols[:, : plan.longest - 1]), 1)
        packed = PackedAttention((len(rows_BN), rows_BN.shape[1]), plan.rows)
        vectors = self.captioned(condition, drop)
        x_MD = self._trunk(rows_BN.flatten()[plan.rows], plan.positions, packed.attend, vectors)
        return self.norm(x_MD[plan.predicting])

    def _trunk(
        self, rows: torch.Tensor, positions: torch.Tensor, attend: Attend, vectors: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features (M, D) of rows (M,) of the embedding table, continued by `vectors`, at positions (M,)."""
        x_MD = self._embedded(rows, vectors)
        if self.position is not None:
            x_MD = x_MD + self.position[positions]
        rotations = None if self.rotations is None else self.rotations[:, positions, None]
        x_MD = self.drop(x_MD)
        for number, layer in enumerate(self.layers):
            x_MD = layer(x_MD, rotations, number, attend)
        return x_MD

    def _embedded(self, rows: torch.Tensor, vectors: torch.Tensor | None) -> torch.Tensor:
        if vectors is None:
            embedded: torch.Tensor = self.embedding(rows)
            return embedded
        count = self.embedding.num_embeddings
        own = self.embedding(rows.clamp_max(count - 1))
        return torch.where((rows < count)[:, None], own, vectors[(rows - count).clamp_min(0)].to(own.dtype))

    def logits(self, x_BD: torch.Tensor, symbols: slice = slice(None)) -> torch.Tensor:
        """Logits (B, v) of `symbols`, a part of the vocabulary, from the features (B, D) of a decoding step."""
        weight = self.head.weight[symbols]
        if x_BD.device.type != "cpu" or x_BD.dtype != torch.float32:
            return F.linear(x_BD, weight)
        # A CPU multiplies a tall matrix by a few columns up to five times faster than a few rows by a wide matrix.
        return (weight @ x_BD.T).T

    def cache(self, sequences: int) -> KVCache:
        """Allocate a KV cache for this many sequences, growing on demand; in the weights' precision, on a CPU float32.

        It has a quarter more columns than a sequence has positions: if one runs on while others come and go, the shift
        of all of them is amortised over that many steps.
        """
        config, like = self.config, self.head.weight
        columns = config.context + -(-config.context // 4)
        shape = (config.layers, 2, sequences, config.heads, columns, config.width // config.heads)
        # With one query, a CPU's fused kernel takes 2.7 times as long in bfloat16 as in float32.
        dtype = torch.float32 if like.device.type == "cpu" else like.dtype
        return KVCache(torch.zeros(shape, dtype=dtype, device=like.device))

    @torch.no_grad()
    def last_features(
        self, rows_BN: torch.Tensor, cache: KVCache | None = None, vectors: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features (B, D) after rows (B, N) of the embedding table: prefix, then symbols.

        With a cache, the sequences are added to it after the running ones.
        """
        length = rows_BN.shape[1]
        return self.norm(self._prefilled(rows_BN, cache, vectors)[length - 1 :: length])

    @torch.no_grad()
    def prefill(self, rows_BN: torch.Tensor, cache: KVCache, vectors: torch.Tensor | None = None) -> None:
        """Prefill the cache with rows (B, N) of the embedding table, N from 0 up, after the running sequences."""
        if rows_BN.shape[1]:
            self._prefilled(rows_BN, cache, vectors)
        else:
            cache.admit(len(rows_BN), 0)

    def _prefilled(self, rows_BN: torch.Tensor, cache: KVCache | None, vectors: torch.Tensor | None) -> torch.Tensor:
        """Features (B * N, D), not normalised."""
        batch, length = rows_BN.shape
        positions = torch.arange(length, device=rows_BN.device).repeat(batch)
        return self._trunk(rows_BN.flatten(), positions, Prefill(batch, length, cache).attend, vectors)

    @torch.no_grad()
    def decode(self, rows: torch.Tensor, *caches: KVCache) -> torch.Tensor:
        """Decode one more row (b,) of the embedding table for every running sequence, cache after cache.

        All layers but attention process the sequences of all caches at once.

        Returns:
            Features (b, D).
        """
        positions = torch.tensor([length for cache in caches for length in cache.lengths], device=rows.device)
        decode = Decode(*caches) if len(caches) == 1 else GroupedDecode(caches)
        features = self.norm(self._trunk(rows, positions, decode.attend))
        for cache in caches:
            cache.clock += 1
        return features


def _rotations(config: GeneratorConfig) -> torch.Tensor:
    """(2, positions, C) cosines and sines of rotary positions, base 10,000; both halves of C have the same angles."""
    half = config.width // config.heads // 2
    frequencies = 10_000.0 ** (-torch.arange(half) / half)
    angles = (torch.arange(config.context)[:, None] * frequencies).repeat(1, 2)
    return torch.stack((angles.cos(), angles.sin()))


def _rotate(x_MHC: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rotate queries or keys (M, H, C) by the angles of their positions (2, M, 1, C)."""
    first, second = x_MHC.chunk(2, dim=-1)
    return (x_MHC * rotations[0] + torch.cat((-second, first), -1) * rotations[1]).to(x_MHC.dtype)
