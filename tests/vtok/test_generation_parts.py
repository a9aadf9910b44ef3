"""Parts of VTok's generation: codes of tokens, heads, the writer's causality and cache, the decoder's conditions."""

import numpy as np
import pytest
import torch

from evatok.metrics import dynamics
from evatok.tokenizers.videoflextok.flow_matching import noised, target
from evatok.vtok import captions
from evatok.vtok.features import Features
from evatok.vtok.language_model import LanguageModelConfig, LanguageModelError, VideoLanguageModel
from evatok.vtok.strategies import Strategy
from evatok.vtok.token_codes import GROUPS, LATENT, SYMBOLS, TokenCodeError, TokenCoder, motion_kind
from evatok.vtok.token_heads import HEADS, CodeHead, MeanHead, Tokens
from evatok.vtok.tokens import FIELD, MOTION_CHANNELS, RawTokens, VideoTokens, field_cells
from evatok.vtok.video_decoder import VideoDecoder, VideoDecoderConfig, VideoDecoderError
from evatok.vtok.writer import VideoWriter

C, D, FRAMES = 6, 16, 31
CODED = (
    Strategy("key"),
    Strategy("frames", frames=4),
    Strategy("vtok", key=4),
    Strategy("lavit"),
    Strategy("omni"),
)
SAID = torch.from_numpy(captions.numbers(["a small solid red circle . nothing moves .", "a large hollow blue cross ."]))


def features(clips: int = 2) -> Features:
    drawn = torch.Generator().manual_seed(0)
    shapes = ((8, 8, C), (FRAMES, 4, 4, C), (15, 8, 8, MOTION_CHANNELS))
    return Features(*(torch.randn(clips, *shape, generator=drawn) for shape in shapes))


def raw_of(strategy: Strategy) -> RawTokens:
    return VideoTokens(strategy, C, D, cell_by_cell=True).raw(features())


def tokens_of(coder: TokenCoder, strategy: Strategy) -> Tokens:
    raw = raw_of(strategy)
    codes = coder.codes(raw, strategy)
    return Tokens(codes, coder.values_of(codes, strategy), coder.latents(raw, strategy))


@pytest.fixture
def coder() -> TokenCoder:
    torch.manual_seed(0)
    return TokenCoder(C, 32).eval()


def writer_of(strategy: Strategy, head: str = "codes") -> VideoWriter:
    torch.manual_seed(0)
    return VideoWriter(LanguageModelConfig(C, D, 2, 2), strategy, head).eval()


@torch.no_grad()
@pytest.mark.parametrize("strategy", CODED, ids=lambda strategy: strategy.name)
def test_tokens_are_four_symbols_each_and_come_back_in_the_shape_that_is_read(coder, strategy):
    raw = raw_of(strategy)
    codes = coder.codes(raw, strategy)
    assert codes.shape == (2, strategy.length(), GROUPS)
    assert 0 <= codes.min() <= codes.max() < SYMBOLS
    back = coder.raw(coder.values_of(codes, strategy), strategy, FRAMES)
    assert (back.spatial.shape, back.motion.shape) == (raw.spatial.shape, raw.motion.shape)
    again = coder.of(motion_kind(strategy))
    values = coder.values_of(codes, strategy)
    assert torch.equal(again.quantise(values[:, -1]).codes, codes[:, -1]), "a codebook entry is its own nearest"


def test_what_has_no_codes_is_refused(coder):
    with pytest.raises(TokenCodeError, match="only residual=grid"):
        VideoWriter(LanguageModelConfig(C, D, 1, 2), Strategy("vtok", residual="mean"))
    with pytest.raises(TokenCodeError, match="codes must be"):
        coder.values_of(torch.full((1, 2, GROUPS), SYMBOLS), Strategy("frames"))
    with pytest.raises(LanguageModelError, match="head 'softmax' is not one of codes"):
        writer_of(CODED[0], "softmax")


def test_a_head_of_codes_is_a_distribution_over_all_combinations():
    """The product of the four softmaxes sums to one, and the loss is its negative logarithm (Eq. 10)."""
    head, state = CodeHead(D), torch.randn(1, 1, D)
    codes = torch.randint(SYMBOLS, (1, 1, GROUPS))
    logs = [head.logits(state, codes, group).log_softmax(-1)[0, 0, codes[0, 0, group]] for group in range(GROUPS)]
    held = Tokens(codes, torch.zeros(1, 1, LATENT), torch.zeros(1, 1, LATENT))
    assert head.loss(state, held, torch.Generator()).item() == pytest.approx(-sum(logs).item(), rel=1e-5)
    others = codes.clone()
    others[..., 2:] = 0
    assert torch.equal(head.logits(state, codes, 2), head.logits(state, others, 2)), "a group sees only those before"


def test_a_mean_of_futures_is_none_of_them():
    """Why mse is only an alternative: of two equally likely latents it writes the middle."""
    head = MeanHead(D)
    futures = torch.stack([torch.ones(LATENT), -torch.ones(LATENT)])[:, None]
    state = torch.zeros(2, 1, D)
    held = Tokens(torch.zeros(2, 1, GROUPS, dtype=torch.int64), futures, futures)
    optimiser = torch.optim.Adam(head.parameters(), 0.1)
    for _ in range(100):
        optimiser.zero_grad()
        head.loss(state, held, torch.Generator()).backward()
        optimiser.step()
    assert head.out(state).abs().max() < 0.1


@torch.no_grad()
@pytest.mark.parametrize("strategy", CODED, ids=lambda strategy: strategy.name)
def test_a_token_is_written_from_the_caption_and_earlier_tokens_alone(coder, strategy):
    writer, tokens = writer_of(strategy), tokens_of(coder, strategy)
    raw = coder.raw(tokens.values, strategy, FRAMES)
    before = writer.states(SAID, raw)
    at = strategy.length() // 2
    changed = tokens.values.clone()
    changed[:, at] = changed[:, at].flip(-1)
    after = writer.states(SAID, coder.raw(changed, strategy, FRAMES))
    assert torch.equal(before[:, : at + 1], after[:, : at + 1])
    assert not torch.allclose(before[:, at + 1], after[:, at + 1])
    other = writer.states(SAID.flip(0), raw)
    assert not torch.allclose(before[:, 0], other[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_what_is_written_step_by_step_is_what_the_whole_sequence_gives(coder, head):
    strategy = Strategy("vtok", key=1, fps=1)
    writer = writer_of(strategy, head)
    values = writer.write(SAID, coder, FRAMES, indices=np.arange(2), temperature=0)
    states = writer.states(SAID, coder.raw(values, strategy, FRAMES))
    noise = torch.full((2, *writer.head.noise_shape), 0.5)
    for number in range(strategy.length()):
        own = coder.of("cell" if number < 1 else "residual")
        again = writer.head.draw(states[:, number], own, noise, 0)
        assert torch.allclose(values[:, number], again, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("head", HEADS)
def test_every_head_writes_what_the_decoder_was_trained_on(coder, head):
    strategy = Strategy("vtok", key=1, fps=1)
    values = writer_of(strategy, head).write(SAID, coder, FRAMES, indices=np.arange(2))
    for number in range(strategy.length()):
        own = coder.of("cell" if number < 1 else "residual")
        assert torch.equal(own.nearest(values[:, number]), values[:, number]), "an entry of the codebooks"


@torch.no_grad()
def test_a_caption_means_the_same_beside_a_longer_one(coder):
    strategy, decoder = Strategy("vtok", key=1, fps=1), decoder_of()
    writer, raw = writer_of(strategy), coder.raw(tokens_of(coder, strategy).values, strategy, FRAMES)
    short = RawTokens(raw.spatial[1:], raw.motion[1:], FRAMES)
    assert torch.allclose(writer.states(SAID, raw)[1:], writer.states(SAID[1:], short), atol=1e-5)
    seen = torch.ones(2, dtype=torch.bool)
    both, there = decoder.conditions(SAID, raw, strategy, (seen, seen))
    alone, own = decoder.conditions(SAID[1:], short, strategy, (seen[1:], seen[1:]))
    assert alone.shape[1] < both.shape[1] < 1 + captions.LONGEST, "no place is spent on padding that all share"
    assert torch.allclose(both[1][there[1]], alone[0][own[0]], atol=1e-5)


def test_motion_to_and_fro_is_in_a_field_s_token():
    field = torch.ones(1, 15, 8, 8, MOTION_CHANNELS)
    field[:, 1::2] = -1
    cells = field_cells(field)
    assert cells.shape == (1, 45, FIELD)
    assert cells.abs().min() == 1


@torch.no_grad()
def test_a_sample_depends_on_its_number_and_the_seed_not_on_its_batch(coder):
    strategy = Strategy("vtok", key=1, fps=1)
    writer = writer_of(strategy)

    def write(rows: list[int], seed: int = 0) -> torch.Tensor:
        return writer.write(SAID[rows], coder, FRAMES, indices=np.array(rows), seed=seed)

    both = write([0, 1])
    assert torch.allclose(both[1:], write([1]), atol=1e-5)
    assert not torch.allclose(both, write([0, 1], seed=1))


def test_a_writer_starts_from_the_model_that_understands():
    strategy = Strategy("vtok", key=4)
    torch.manual_seed(1)
    understood = VideoLanguageModel(LanguageModelConfig(C, D, 2, 2), strategy)
    writer = writer_of(strategy)
    assert writer.language.start_from(understood) == []
    ours, theirs = writer.language.state_dict(), understood.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def decoder_of() -> VideoDecoder:
    torch.manual_seed(0)
    shape = VideoDecoderConfig(frames=6, size=32, channels=C, latents=8, width=D, layers=1, heads=2, text_layers=1)
    decoder = VideoDecoder(shape).eval()
    for parameter in (decoder.to_latents.weight, decoder.layers[0].modulation.weight):
        torch.nn.init.normal_(parameter, std=0.3)
    return decoder


@torch.no_grad()
def test_the_decoder_sees_what_is_shown_and_nothing_of_what_is_not():
    decoder, strategy = decoder_of(), Strategy("vtok", key=4)
    raw, noise = raw_of(strategy), torch.randn(2, 2 * 2 * 2, 8 * 4)
    sigma = torch.full((2,), 0.9)
    both = torch.tensor([True, True])

    def velocity(said: torch.Tensor, tokens: RawTokens, kept: tuple) -> torch.Tensor:
        return decoder.velocity(noise, sigma, decoder.conditions(said, tokens, strategy, kept))

    other = RawTokens(raw.spatial.flip(0), raw.motion.flip(0), raw.frames)
    shown = velocity(SAID, raw, (both, both))
    assert not torch.allclose(shown, velocity(SAID.flip(0), raw, (both, both)))
    assert not torch.allclose(shown, velocity(SAID, other, (both, both)))
    assert torch.equal(velocity(SAID, raw, (~both, both)), velocity(SAID.flip(0), raw, (~both, both)))
    assert torch.equal(velocity(SAID, raw, (both, ~both)), velocity(SAID, other, (both, ~both)))


@torch.no_grad()
def test_a_decoder_that_knows_the_latents_has_the_velocity_of_the_flow():
    """The layers predict latents; if they are right, so is the velocity noise - x, down to the least noise level."""
    decoder, x = decoder_of(), torch.randn(2, 8, 32)
    decoder.to_latents.weight.zero_()
    decoder.to_latents.bias.copy_(x[0, 0])
    x = x[:1, :1].expand(2, 8, 32)
    noise, sigma = torch.randn(2, 8, 32), torch.tensor([0.05, 1.0])
    everywhere = torch.ones(2, dtype=torch.bool)
    shown = decoder.conditions(SAID, raw_of(Strategy("key")), Strategy("key"), (everywhere, everywhere))
    assert torch.allclose(decoder.velocity(noised(x, noise, sigma), sigma, shown), target(x, noise), atol=1e-4)


@torch.no_grad()
def test_samples_have_the_clips_shape_and_differ_by_number_not_by_batch():
    decoder, strategy = decoder_of(), Strategy("key")
    raw = raw_of(strategy)
    both = decoder.sample(SAID, raw, strategy, indices=np.array([3, 4]), steps=2, guidance=2.0)
    assert both.shape == (2, 3, 6, 32, 32)
    one = RawTokens(raw.spatial[1:], raw.motion[1:], raw.frames)
    alone = decoder.sample(SAID[1:], one, strategy, indices=np.array([4]), steps=2, guidance=2.0)
    assert torch.allclose(both[1:], alone, atol=1e-4)
    with pytest.raises(VideoDecoderError, match="one caption, one number and tokens"):
        decoder.sample(SAID, one, strategy, indices=np.array([4]))
    with pytest.raises(VideoDecoderError, match="clips must be"):
        decoder.encode(torch.zeros(1, 3, 8, 32, 32))


def test_clips_return_from_their_latents_without_the_frames_that_were_added():
    decoder = decoder_of()
    still = torch.full((1, 3, 6, 32, 32), 0.5)
    latents = decoder.encode(still)
    assert latents.shape == (1, 2 * 2 * 2, 4 * 8)
    assert decoder.clips(latents).shape == still.shape


@pytest.mark.parametrize(
    ("caption", "complaint"),
    [("a small pink circle .", "no word 'pink'"), ("", "0 words"), ("red " * 81, "81 words")],
)
def test_captions_that_cannot_be_read_are_told(caption, complaint):
    with pytest.raises(captions.CaptionError, match=complaint):
        captions.numbers(["a red circle .", caption])


def test_what_moves_is_dynamic_and_what_moves_evenly_is_smooth():
    def square(places: list[int]) -> np.ndarray:
        clip = np.full((len(places), 64, 64, 3), 40, np.uint8)
        for frame, place in zip(clip, places, strict=True):
            frame[20:30, place : place + 10] = 220
        return clip

    still, even, shaking = square([10] * 9), square(list(range(10, 28, 2))), square([10, 14] * 4 + [10])
    clips = np.stack([still, even, shaking])
    speed = dynamics.speeds(clips)
    assert speed[0] == 0
    assert speed[1] > 0.3
    assert dynamics.dynamic_degree(clips, np.stack([still, square(list(range(10, 19)))])).tolist() == [
        False,
        True,
        True,
    ]
    smooth = dynamics.smoothness(clips)
    assert smooth[0] == 1
    assert smooth[1] > smooth[2]
    with pytest.raises(ValueError, match="at least 3 frames"):
        dynamics.smoothness(clips[:, :2])
