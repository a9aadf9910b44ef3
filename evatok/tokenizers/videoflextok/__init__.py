"""VideoFlexTok (arXiv 2604.12887): registers per latent frame, ordered coarse to fine, and a flow decoder.

    tokenizer = VideoFlexTok.load(path)
    codes = tokenizer.encode(clips, tokenizer.lengths(4, len(clips)))
    made = tokenizer.decode(codes, steps=20, seed=0)

Any number of tokens per latent frame, from none to K, decodes to a plausible clip: the decoder makes up what the tokens
leave open.
"""

from evatok.tokenizers.videoflextok.config import VIDEOFLEXTOK_SIZES, FlexTokError, VideoFlexTokConfig
from evatok.tokenizers.videoflextok.model import KIND, FlexNetwork, VideoFlexTok

__all__ = ["KIND", "VIDEOFLEXTOK_SIZES", "FlexNetwork", "FlexTokError", "VideoFlexTok", "VideoFlexTokConfig"]
