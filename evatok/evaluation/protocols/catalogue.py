"""The known protocols. What a paper does not state is our choice, and listed in `unknown`."""

from __future__ import annotations

from typing import Any

from evatok.data import sets
from evatok.evaluation.protocols import images, questions
from evatok.evaluation.protocols.protocol import Protocol, ProtocolError
from evatok.storage.records import Record

NETWORKS = {
    "lpips_vgg": "LPIPS 0.1 heads of the package lpips on torchvision's vgg16-397923af",
    "lpips_alex": "LPIPS 0.1 heads of the package lpips on torchvision's alexnet-owt-7be5be79",
    "st_lpips_alex": "ST-LPIPS alex_shift_tolerant, sha256 b356b382, of the package stlpips_pytorch",
    **dict.fromkeys(
        ("rfvd", "gfvd", "rfvd_extrapolated", "kvd"),
        "I3D trained on Kinetics-400, its 400 logits, on frames brought to 224x224 (bilinear, not antialiased)",
    ),
    **dict.fromkeys(
        ("feature_frechet", "feature_agreement"),
        "EfficientNet-Lite0 trained on ImageNet: its last block's mean features of every frame and of its change",
    ),
    "vbench": "VBench's own, run elsewhere: DINO, CLIP, AMT, RAFT, MUSIQ, LAION's aesthetic head, GRiT, UMT, ViCLIP",
    "rfid": "Inception-v3 as the package torch-fidelity ships it, 2048 pooled features of every frame",
    "gfid": "Inception-v3 as the package torch-fidelity ships it, 2048 pooled features of every image",
    **dict.fromkeys(
        ("rfd_efficientnet", "gfd_efficientnet", "rkd_efficientnet", "gkd_efficientnet"),
        "EfficientNet-Lite0 trained on ImageNet-1k, sha256 57934424, the mean of its last block's 320 channels, on "
        "images brought to 224x224 (bilinear, antialiased)",
    ),
}
"""The frozen network of each metric that has one."""


_LARP = "Wang et al., LARP, ICLR 2025, and its published evaluation code"
_VIDEOFLEXTOK = "VideoFlexTok, arXiv 2604.12887"
_EVATOK = "EVATok, arXiv 2603.12267, Sec. 4.2"


def _protocol(**fields: Any) -> Protocol:
    """Build a protocol from defaults that most share, and the networks of its metrics."""
    usual: dict[str, Any] = {
        "data_version": None,
        "clip_seed": 0,
        "fps": None,
        "stride": 1,
        "resize": "bilinear-antialias",
        "padded": True,
        "measured_size": None,
        "rounding": False,
        "optional": (),
        "unknown": (),
        "reference": "the same clips, before the tokenizer",
    }
    merged = {**usual, **fields}
    named = (*merged["metrics"], *merged["optional"])
    networks = tuple((metric, NETWORKS[metric]) for metric in named if metric in NETWORKS)
    return Protocol(**merged, networks=networks)


_EMBEDDED: dict[str, Any] = {
    "version": 1,
    "split": "validation",
    "clip_choice": "made",
    "clips": 320,
    "frames": 16,
    "size": 64,
    "resize": "made-at-size",
    "padded": False,
    "rounding": True,
    "metrics": ("psnr", "ssim", "l1", "mse", "rfvd"),
    "optional": ("lpips_vgg", "lpips_alex", "st_lpips_alex", "kvd", "rfvd_extrapolated", "rfid"),
    "citation": "this project",
}

_EMBEDDED_VIDEO: dict[str, Any] = {**_EMBEDDED, "version": 2, "data": "freedoom", "data_version": 3}
"""Version 1 used recipe 2 of the clips, in which splits share maps and the camera is mostly at rest."""

_SEEN_GAMES: dict[str, Any] = {"data": "arcade-seen", "data_version": 1}
"""Version 1 used all games, before a third of them was held out."""

_EMBEDDED_GENERATED: dict[str, Any] = {
    **_EMBEDDED_VIDEO,
    "metrics": ("gfvd",),
    "optional": ("kvd",),
}

_VIDEOFLEXTOK_K600: dict[str, Any] = {
    "version": 1,
    "data": "k600",
    "split": "validation",
    "clip_choice": "random-start",
    "clips": None,
    "frames": 17,
    "fps": 4.0,
    "size": 128,
    "citation": _VIDEOFLEXTOK,
}


def _shared(fields: dict[str, Any]) -> Protocol:
    """Build a protocol from its fields, plus what all embedded sets share if it is one of them."""
    return _protocol(**{**(_EMBEDDED if sets.is_embedded(fields["data"]) else {}), **fields})


_OWN: dict[str, Any] = {
    **_EMBEDDED,
    "data": "own",
    "split": "all",
    "clip_choice": "first",
    "clips": None,
    "resize": "bilinear-antialias",
    "unknown": ("clips", "fps"),
    "note": "Whatever clips a user has, as main_table1 --data decodes them: rows of one set compare, sets never do.",
}


_ALL = (
    _protocol(
        **_EMBEDDED_VIDEO,
        name="embedded-reconstruction",
        note="Clips are made from seeds where they are measured; 320 are few for rFVD, so only equal N compare.",
    ),
    _protocol(
        **{**_EMBEDDED_VIDEO, "metrics": ("feature_frechet", "feature_agreement"), "optional": ("psnr", "l1")},
        name="embedded-features",
        note="The same clips as embedded-reconstruction, by image features, which cost a hundredth of rFVD's network.",
    ),
    _protocol(
        **{**_EMBEDDED_VIDEO, **_SEEN_GAMES},
        name="embedded-unseen",
        note="The same on games that proxies are trained on and no router is; needs the extra evatok[arcade].",
    ),
    _protocol(
        **{**_EMBEDDED_VIDEO, "version": 1, "data": "arcade-held-out", "data_version": 1},
        name="embedded-unseen-by-proxy",
        note="The same on games that neither proxies nor routers are trained on; needs the extra evatok[arcade].",
    ),
    _protocol(
        **_EMBEDDED_GENERATED,
        name="embedded-generation",
        reference="as many real clips; their motion classes are those generated",
        note="One sample a real clip, of its class; 320 are few for gFVD, so only equal N compare.",
    ),
    _protocol(
        **{**_EMBEDDED_GENERATED, **_SEEN_GAMES},
        name="embedded-games-generation",
        reference="as many real clips; their games are those generated",
        note="The same on the games of embedded-unseen; needs the extra evatok[arcade].",
    ),
    _protocol(
        **{**_EMBEDDED_GENERATED, "version": 1, "data": "moving-shapes", "data_version": 1},
        name="moving-shapes-generation",
        reference="as many real clips; their captions are those generated",
        note="One sample a real clip, of its caption; 320 are few for gFVD, so only equal N compare.",
    ),
    _protocol(
        **_EMBEDDED_GENERATED,
        name="embedded-prediction",
        reference="the clips whose first 5 frames condition the prediction",
        note=(
            "5 frames given, the last repeated to fill two blocks; all 16 frames are generated again and all 16 are "
            "measured, at their 64x64 pixels; 320 are few for gFVD, so only equal N compare."
        ),
    ),
    _protocol(**_OWN, name="own-reconstruction"),
    _protocol(**{**_OWN, "size": 128}, name="own-reconstruction-128"),
    _protocol(**{**_OWN, **images.OWN}, name="own-images-reconstruction"),
    _protocol(**{**_OWN, **images.OWN, "size": 256}, name="own-images-reconstruction-256"),
    *map(_shared, images.PROTOCOLS),
    _protocol(
        name="larp-ucf101-reconstruction",
        version=1,
        data="ucf101",
        split="train",
        clip_choice="random-start",
        clips=9537,
        frames=16,
        size=128,
        metrics=("rfvd", "psnr", "lpips_vgg"),
        optional=("ssim", "l1", "mse", "kvd", "rfvd_extrapolated"),
        unknown=("clip_seed", "rounding", "8-bit rounding of the resized frames"),
        note=(
            "rFVD on the training videos of split 1, one clip each. LARP does not seed the start, so small differences "
            "remain; its covariances divide by N, its decoder runs in fp16. PSNR from the MSE of a whole clip."
        ),
        citation=_LARP,
    ),
    _protocol(
        name="larp-ucf101-generation",
        version=1,
        data="ucf101",
        split="train",
        clip_choice="windows",
        clip_seed=42,
        clips=10000,
        frames=16,
        size=128,
        metrics=("gfvd",),
        unknown=("rounding", "LARP's draw for its seed 42: ours is numpy's"),
        reference="as many real clips, drawn from all windows of the train list; their classes are those generated",
        note="10,000 samples, classes as often as among the drawn clips; temperature 1, no top-k or top-p.",
        citation=_LARP,
    ),
    _protocol(
        name="larp-k600-prediction",
        version=1,
        data="k600",
        split="validation",
        clip_choice="windows",
        clips=50000,
        frames=16,
        size=128,
        measured_size=64,
        metrics=("gfvd",),
        unknown=("clip_seed", "rounding", "filter of the step to 64x64: ours is bilinear, antialiased"),
        reference="the windows whose first 5 frames condition the prediction",
        note=(
            "5 frames given, the last repeated up to 16; all 16 frames are generated again and all 16 are measured, "
            "both sides brought to 64x64."
        ),
        citation=_LARP,
    ),
    _protocol(
        name="webvid-validation-3fps",
        version=1,
        data="webvid",
        split="validation",
        clip_choice="random-start",
        clips=None,
        frames=16,
        fps=3.0,
        size=128,
        metrics=("psnr", "lpips_vgg", "rfvd"),
        optional=("ssim", "l1", "mse", "kvd", "rfvd_extrapolated"),
        unknown=("clips", "clip_choice", "clip_seed", "resize", "padded", "rounding", "networks"),
        note="The paper names the set, the frame rate, 16x128x128, LPIPS and FVD, and nothing else.",
        citation=_EVATOK,
    ),
    _protocol(
        name="videoflextok-k600-17-frame",
        **_VIDEOFLEXTOK_K600,
        metrics=("rfvd",),
        unknown=("split", "clips", "clip_choice", "clip_seed", "resize", "padded", "rounding", "networks", "fps"),
        note="17-frame clips of 4 seconds (Table 1); not comparable with the 16-frame prediction protocol.",
    ),
    _protocol(
        name="videoflextok-k600-17-frame-generation",
        **_VIDEOFLEXTOK_K600,
        metrics=("gfvd",),
        unknown=("split", "clips", "clip_choice", "clip_seed", "resize", "padded", "rounding", "networks", "reference"),
        reference="real clips of the same set; which and how many is not stated",
        note="Class to video with a 2.2B autoregressive model (Table 1).",
    ),
    _protocol(
        name="videoflextok-msrvtt-17-frame",
        version=1,
        data="msrvtt",
        split="test",
        clip_choice="random-start",
        clips=5000,
        frames=17,
        fps=4.0,
        size=256,
        metrics=("l1", "mse", "psnr", "lpips_vgg", "rfid", "rfvd"),
        optional=("lpips_alex", "ssim", "kvd", "rfvd_extrapolated"),
        unknown=("split", "clip_choice", "clip_seed", "resize", "padded", "rounding", "networks"),
        note="Table 8: 5,000 clips at 4 FPS, 256 px (LARP at 128 px); its MAE is our l1. LPIPS net not stated.",
        citation=_VIDEOFLEXTOK,
    ),
    *(
        _protocol(**{**(_EMBEDDED if sets.is_embedded(fields["data"]) else {}), **fields})
        for fields in questions.PROTOCOLS
    ),
)
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def get(name: str) -> Protocol:
    """Return the protocol called `name`. Raises ProtocolError, listing all names, for an unknown one."""
    if name not in PROTOCOLS:
        raise ProtocolError(f"unknown protocol {name!r}; choose one of {', '.join(sorted(PROTOCOLS))}")
    return PROTOCOLS[name]


def comparable(record: Record) -> bool:
    """Whether a record's values may be compared with others of their protocol.

    False for a limited or otherwise deviating run, and for one under an older version of its protocol.
    """
    return not why_not_comparable(record)


def why_not_comparable(record: Record) -> list[str]:
    """List the reasons, a sentence each, why a record must not enter a table; [] if it may."""
    measured = record.protocol
    known = PROTOCOLS.get(str(measured.get("name")))
    if known is None:
        return [f"{record.id} was measured under no known protocol"]
    if measured.get("hash") != known.hash:
        return [
            f"{record.id} was measured under version {measured.get('version')} of {known.name}, now {known.version}"
        ]
    reasons = [str(reason) for reason in measured.get("deviations", ["deviations were not recorded"])]
    return reasons or ([] if measured.get("comparable") is True else ["the record says that it is not comparable"])
