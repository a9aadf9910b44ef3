"""Every configuration key of every experiment: its meaning and its domain, declared once.

An experiment states only its defaults, with the paper's values as comments; `print_config` shows both. Where a key
means something else in one experiment, its entry is called `experiment.key`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from evatok.data.clips import SPLITS
from evatok.data.streaming import SHORT
from evatok.evaluation.protocols import PROTOCOLS
from evatok.experiments.domains import Domain, Flag, Many, OneOf, OrNone, Real, Refused, Text, Whole
from evatok.generation.order import ORDERS
from evatok.generation.taught import TASKS
from evatok.generation.transformer import GENERATOR_SIZES
from evatok.metrics import catalogue
from evatok.metrics.perceptual import METRICS as PERCEPTUAL
from evatok.models.encoders import NAMED
from evatok.models.quantisers import CODES
from evatok.routing.trained_router import TARGETS
from evatok.search.tree import SEARCHES
from evatok.storage.records import STATUSES
from evatok.tokenizers.config import FRONTS, MODALITIES
from evatok.tokenizers.videoflextok.config import DECODER_MASKS, DROPS, FORMS
from evatok.tokenizers.videoflextok.nested_dropout import DRAWS, PER
from evatok.training.augmentation import POLICY
from evatok.training.loop import SCHEDULES
from evatok.vtok.strategies import KINDS, RESIDUALS
from evatok.vtok.token_heads import HEADS

RUN = {"size": "toy", "device": "cpu", "threads": 0, "records_folder": "results/records"}
"""Defaults that all experiments share."""

TRAINING = {"clip_norm": 1.0, "flip": True, "bf16": None, "minutes": 0.0, "log_every": 20, "report_to": "none"}
"""Defaults that all trainings share."""

MEMORY = {"accumulate": 1, "fp16": False}
"""Defaults of trainings whose batches are shared between ranks: each may accumulate its part, or compute in float16."""

PLAN = {"dry_run": False, "teraflops": 300.0, "memory_gb": 80.0, "devices": 1}
"""Defaults of stages that can estimate their cost beforehand."""

STAGE = RUN | TRAINING | MEMORY | PLAN
"""Defaults of stages that train."""

DECODING = {"workers": 0, "short": "skip"}
"""Defaults of experiments that read a user's videos."""


@dataclass(frozen=True)
class Key:
    """Allowed values of a key, and its meaning."""

    domain: Domain
    comment: str


_INF = math.inf
_CLIPS, _SOME_CLIPS = Whole(0, 10**7), Whole(1, 10**7)
_STEPS, _BATCH, _PIXELS = Whole(1, 10**9), Whole(1, 2**16), Whole(0, 4096)
_RATE, _WEIGHT, _SHARE = Real(0, 1, "(]"), Real(0, 10**6), Real(0, 1, "[)")
_PATH, _PATH_OR_NONE, _FPS = Text(form="a path"), Text(empty=True, form="a path"), Real(0, 240, "(]")
_DATA = Text(form="a name or a path")
_WORDS = Text(empty=True, form="words, separated by commas")
_FLAG, _LOW = Flag(), "bfloat16 autocast"
_DATA_WORDS = "an embedded set, a built set's folder, or own clips: a manifest CSV, class folders, tar shards, a+b"
SCORED = [entry.scored for entry in catalogue.METRICS if entry.scored]
"""Metrics that stage 2 stores."""

_ENCODERS = f"a folder, a name on the hub, {', '.join(NAMED)}"
_OWN_VIDEOS = "videos of a protocol without embedded clips: manifest CSV, folder of class folders, built set"
_ASSIGNMENT = r"random|router:[^\0]+|uniform:\s*\d+\s*|fixed:\s*\d+\s*(,\s*\d+\s*)+"
_RULE = Text(pattern=_ASSIGNMENT, form="one of uniform:16, fixed:16,8,8,4, router:CHECKPOINT and random")
_SHARDS = "folder of measured shards, named by a hash of what made them"

_EVERYWHERE = {
    "size": Key(OneOf(STATUSES), "network size, and the record's status"),
    "seed": Key(Whole(0, 2**32 - 1), "random seed"),
    "device": Key(Text(form="cpu, cuda or cuda:N"), "device to compute on"),
    "threads": Key(Whole(0, 4096), "CPU threads; 0 leaves PyTorch's choice"),
    "records_folder": Key(_PATH, "where the record goes"),
    "work": Key(_PATH, "folder of the resumable state and the curve"),
    "minutes": Key(Real(0, 10**6), "wall-clock budget in minutes: saves and exits, rerun to resume; 0: none"),
    "batch": Key(_BATCH, "clips per step"),
    "bf16": Key(Flag(none=True), f"{_LOW} (weights, losses: float32); None: on devices with native support"),
    "fp16": Key(_FLAG, "float16 autocast with a scaled loss, for devices without bfloat16"),
    "fsdp": Key(_FLAG, "shard the network across processes (FSDP2): less memory, same result"),
    "accumulate": Key(Whole(1, 2**16), "gradient accumulation: pieces per process and batch, to save memory"),
    "dry_run": Key(_FLAG, "print parameters, memory, operations, disk and hours; compute and write nothing"),
    "teraflops": Key(Real(0, 10**6, "(]"), "achieved TFLOP/s per device, for dry_run"),
    "memory_gb": Key(Real(0, 10**6, "(]"), "memory of a device, for dry_run"),
    "devices": Key(Whole(1, 10**6), "devices that share the work, for dry_run"),
    "report_to": Key(
        OneOf(("none", "tensorboard", "trackio")), "also log the curve to TensorBoard (files in work) or trackio"
    ),
    "shard_length": Key(Whole(1, 10**6), "clips lost at most by an interruption"),
    "recompute": Key(_FLAG, "recompute layer activations in the backward pass: less memory"),
    "compile": Key(_FLAG, "torch.compile of the tokenizer's layers"),
}

_CLIP_SETS = {
    "data": Key(_DATA, _DATA_WORDS),
    "fps": Key(OrNone(_FPS), "frames per second sampled from a user's videos; None: their own rate"),
    "train_clips": Key(_CLIPS, "clips of the training split; 0 takes all of a user's set"),
    "validation_clips": Key(_CLIPS, "clips of the validation split to measure on; 0 takes all of a user's set"),
    "validation_data": Key(Text(empty=True, form="a name or a path"), 'what to measure on; "": the same as `data`'),
    "workers": Key(
        Whole(0, 256), "processes that decode a user's videos on the fly; 0: decode all of them first and cache them"
    ),
    "short": Key(OneOf(SHORT), "videos shorter than a clip: skip, or pad with their last frame (needs workers)"),
    "random_start": Key(_FLAG, "start each video at a random frame in every epoch (needs workers)"),
    "split": Key(Text(form="train, validation, test, all, or what a manifest calls it"), "split of the clips"),
    "limit": Key(_CLIPS, "measure only the first `limit` clips; 0: all"),
    "clips": Key(_CLIPS, "clips to score; 0 takes all of a user's set"),
    "label": Key(Text(form="a column"), "column of classes: motion (Freedoom), game (Arcade), label (class folders)"),
    "protocol": Key(OneOf(PROTOCOLS), "a name of evatok.evaluation.protocols"),
}

_OPTIMISER = {
    "steps": Key(_STEPS, "optimiser steps"),
    "learning_rate": Key(_RATE, "peak of the schedule"),
    "final_learning_rate": Key(Real(0, 1), "end of the schedule"),
    "warmup": Key(Whole(0, 10**9), "steps of linear warm-up"),
    "schedule": Key(OneOf(SCHEDULES), "wsd: constant for 80 % of the steps, then annealed; or cosine"),
    "weight_decay": Key(Real(0, 10), "AdamW's"),
    "clip_norm": Key(Real(0, _INF, "(]"), "largest gradient norm"),
    "ema": Key(_SHARE, "decay of the moving average of the weights, which ships; 0: the last weights ship"),
    "dropout": Key(_SHARE, "of the network's branches"),
    "flip": Key(_FLAG, "mirror half of the clips"),
    "log_every": Key(_STEPS, "steps per line of the curve"),
    "save_every": Key(_STEPS, "steps between resumable states; a multiple of log_every"),
    "checkpoint": Key(_PATH, "where the finished network goes"),
    "start_from": Key(_PATH_OR_NONE, 'checkpoint of the same network to continue from; "": fresh weights'),
}

_TOKENIZER = {
    "modality": Key(OneOf(MODALITIES), "video, or image: clips of one frame and one block, of eight levels"),
    "front": Key(OneOf(FRONTS, empty=True), 'between pixels and patches; "": cnn for images, else linear'),
    "direct_steps": Key(Whole(0, 10**9), "initial steps in which a cnn also learns to reconstruct by itself; 0: none"),
    "quantiser": Key(OneOf(CODES, empty=True), '"": the size\'s own'),
    "codebook_size": Key(Whole(0, 2**24), "codes; 0: the size's own"),
    "groups": Key(Whole(1, 4096), "groups of clips of similar length: less padding, the same result"),
    "l1": Key(_WEIGHT, "weight of L1"),
    "squared": Key(_WEIGHT, "weight of the squared error"),
    "change": Key(_WEIGHT, "weight of the squared error of frame differences within a block"),
    "perceptual": Key(OneOf(PERCEPTUAL), "perceptual metric"),
    "perceptual_frames": Key(Whole(0, 4096), "frames per clip it compares, drawn again at each step; 0: all"),
    "perceptual_weight": Key(_WEIGHT, "weight of the perceptual term"),
    "quantiser_weight": Key(_WEIGHT, "weight of the codebook term"),
    "entropy_weight": Key(_WEIGHT, "weight of the codebook's entropy; FSQ and LFQ have none"),
    "alignment": Key(_DATA, f"frozen encoder that the decoder is aligned to: {_ENCODERS}, or none"),
    "alignment_weight": Key(_WEIGHT, "weight of the alignment"),
    "alignment_layer": Key(Whole(1, 1000), "aligned decoder layer, counted from 1"),
    "alignment_resize": Key(_PIXELS, "pixels the encoder's input is resized to; 0: the clips' size"),
    "discriminator": Key(OneOf(("none", "transformer", "semantic", "patch")), "semantic: heads on a frozen encoder"),
    "adversarial_weight": Key(_WEIGHT, "weight of the adversarial term"),
    "adversarial_adaptive": Key(_FLAG, "scale it by the gradients' ratio at the last layer, VQGAN's rule"),
    "discriminator_start": Key(Whole(0, 10**9), "first step with a discriminator"),
    "discriminator_warmup": Key(Whole(0, 10**9), "steps it trains before entering the tokenizer's loss"),
    "discriminator_interval": Key(_STEPS, "steps per update of the discriminator"),
    "discriminator_rate": Key(_RATE, "constant learning rate of the discriminator"),
    "lecam": Key(_WEIGHT, "weight of LeCam regularisation of the transformer discriminator"),
    "label_smoothing": Key(_SHARE, "of the transformer discriminator's real labels"),
    "semantic_encoder": Key(_DATA, f"encoder of the semantic discriminator: {_ENCODERS}"),
    "semantic_layers": Key(Many(Whole(0, 1000), 1), "its layers with a head each; 0 is the embedding"),
    "semantic_resize": Key(_PIXELS, "pixels its input is resized to; 0: the clips' size"),
    "semantic_frames": Key(Whole(0, 4096), "successive frames per clip it sees, drawn again at each step; 0: all"),
    "semantic_lecam": Key(_WEIGHT, "weight of LeCam regularisation of the semantic discriminator"),
    "augment": Key(_FLAG, "DiffAug before the semantic discriminator"),
    "assignment": Key(OneOf(("router", "uniform", "random")), "what chooses the assignments; uniform is the baseline"),
    "router": Key(_PATH, "router that chooses the assignments"),
    "uniform_tokens": Key(Whole(0, 2**20), "tokens per block of uniform; 0: the baseline, half of the longest level"),
}

_ENCODER = {
    "encoder_layers": Key(Many(Whole(0, 1000)), "layers whose mean features the probe reads; []: the last"),
    "encoder_resize": Key(_PIXELS, "pixels the encoder's input is resized to; 0: the clips' size"),
    "probe_data": Key(_DATA, "labelled clips of the linear probe, as in `data`; none: no probe"),
    "probe_labels": Key(Many(Text(form="a column")), "columns of their labels"),
    "probe_train_clips": Key(_CLIPS, "clips of the training split that the probe is trained on"),
    "probe_clips": Key(_CLIPS, "clips of the validation split that the probe is tested on"),
    "masking": Key(Real(0, 1, "()"), "share of patches hidden"),
    "tubes": Key(_FLAG, "hide the same positions in every frame"),
    "normalise_patches": Key(_FLAG, "normalise each patch before reconstruction"),
}

_ROUTER = {
    "search": Key(OneOf(SEARCHES), "tree is exact and shares prefixes; brute is the reference"),
    "shard": Key(Text(pattern=r"\d{1,9}/\d{1,9}", form="i/n with 0 <= i < n, such as 0/4"), "i/n: every n-th shard"),
    "head": Key(OneOf(("joint", "per_block")), "joint: one logit per candidate; per_block: m logits per block, summed"),
    "target": Key(OneOf(TARGETS), "hard: the best candidate; soft: softmax of the rewards; reward: expected reward"),
    "temperature": Key(Real(0.001, 1000), "of soft, and weight of reward's entropy bonus; in units of the reward"),
    "metric": Key(OneOf(SCORED), "quality in the reward"),
    "w_q": Key(Real(0, 2, "(]"), "weight of quality; the weight of length is 2 - w_q"),
    "token_share": Key(Real(0, 4), "not 0: find the w_q whose best assignments average this share of the baseline"),
    "train_table": Key(_PATH, "candidate table of the training clips"),
    "validation_table": Key(_PATH, "candidate table of the validation clips"),
    "table": Key(_PATH_OR_NONE, 'path of the merged table; "": shards only'),
    "routers": Key(Text(empty=True, form="paths or patterns, separated by commas"), 'routers to measure; "": none'),
    "weights": Key(Many(Real(0, 2)), "w_q of max-proxy-reward points"),
    "thresholds": Key(Whole(0, 10**4), "number of points of the threshold rule"),
    "draws": Key(Whole(0, 10**6), "bootstrap draws of clips, for every spread and interval"),
    "i3d_bf16": Key(_FLAG, "rFVD's network in bfloat16, for real and reconstructed clips alike"),
}

_GENERATOR = {
    "model": Key(OneOf(GENERATOR_SIZES), "network size: B has 99M parameters, L 327M, XL 633M"),
    "task": Key(OneOf(TASKS), "class (class-to-video), frames (predict from five given frames) or text (captions)"),
    "text": Key(Text(form="words, minilm, a folder or a name"), "words: trained along; else a frozen language model"),
    "text_slots": Key(Whole(1, 1024), "vectors per caption"),
    "tokenizer": Key(_PATH, "tokenizer whose codes the generator is trained on"),
    "order": Key(OneOf(ORDERS), "of VideoFlexTok's tokens: time-first, depth-first, or flat"),
    "given": Key(OneOf(("levels", "row")), "given frames: levels (longest, middle) or row (about uniform_tokens)"),
    "positions": Key(OneOf(("learned", "rope")), "of symbols; learned ones are absolute"),
    "class_dropout": Key(_SHARE, "share of clips whose class is hidden, for guidance"),
    "code_bf16": Key(_FLAG, "autocast of the tokenizer while coding; the router decides in float32"),
    "frame_label": Key(Text(empty=True, form="a column"), 'column of a class per frame, separated by blanks; "": none'),
    "frames": Key(Whole(2, 4096), "frames per clip"),
    "pixels": Key(Whole(8, 4096, 8), "side of its frames in pixels"),
    "width": Key(Whole(8, 4096, 8), "channels of the first layer"),
    "frame_weight": Key(_WEIGHT, "weight of the frames' cross-entropy, relative to the clip's"),
    "policy": Key(Many(OneOf(POLICY)), "further augmentation of the training clips"),
    "generator": Key(_PATH, "generator to sample from"),
    "classifier": Key(_PATH_OR_NONE, 'of class consistency; "": not measured'),
    "judge_reconstructions": Key(_FLAG, "measure class consistency of the real clips' reconstructions too"),
    "count": Key(_CLIPS, "number of samples and of real clips; 0: the protocol's"),
    "classes": Key(_WORDS, 'classes of the samples, round-robin; "": those of the real clips'),
    "guidance": Key(Real(0, 1000), "classifier-free; 1: none"),
    "top_k": Key(Whole(0, 2**24), "0: no limit"),
    "top_p": Key(Real(0, 1, "(]"), "1: no limit"),
    "show": Key(Whole(1, 1024), "samples to write for inspection, round-robin over classes"),
    "moving": Key(Text(pattern=r"[^\0/]+\.(mp4|webp)", form="a file name ending in .mp4 or .webp"), "moving picture"),
    "output": Key(_PATH_OR_NONE, 'folder of frames, sheet, moving picture and tokens; "": none'),
}

_EVALUATION = {
    "fake": Key(_PATH_OR_NONE, "folder of clips made elsewhere, to measure instead; same file names as in `real`"),
    "real": Key(_PATH_OR_NONE, "folder of reference clips instead of the protocol's; such a record stands in no table"),
    "metrics": Key(_WORDS, 'some of those the protocol has; "": all but the optional ones'),
    "choices": Key(Whole(1, 1000), "clip choices (seeds) for the spread of distribution metrics; 1: none"),
    "assignments": Key(Many(_RULE, 1), "assignment rules, each with a set of reconstructions"),
    "per_clip": Key(_PATH_OR_NONE, 'folder of values and features of every clip; "": none'),
}

_ALL_STAGES = {
    "folder": Key(_PATH, "folder of all outputs, checkpoints and tables included"),
    "all_stages.train_clips": Key(OrNone(_CLIPS), "clips of the training split; None: each stage's own"),
    "all_stages.batch": Key(OrNone(_BATCH), "clips per step; None: each stage's own"),
    "scored_clips": Key(OrNone(_SOME_CLIPS), "training clips that stage 2 scores; None: its own"),
    "encoder_steps": Key(OrNone(_STEPS), "of the VideoMAE for alignment and semantic discriminator; None: its own"),
    "proxy_steps": Key(OrNone(_STEPS), "of stage 1; None: its own"),
    "router_steps": Key(OrNone(_STEPS), "of stage 3; None: its own"),
    "final_steps": Key(OrNone(_STEPS), "of each tokenizer of stage 4, routed and uniform; None: its own"),
    "router_batch": Key(OrNone(_BATCH), "clips per step of the router; None: stage 3's own"),
}

_VTOK = {
    "encoder": Key(_PATH, "the frozen image encoder: a checkpoint, or (of answers) the folder of a CLIP or DINO"),
    "channels": Key(Whole(8, 4096, 8), "of the second layer"),
    "patch_weight": Key(_WEIGHT, "weight of the patches' L1, relative to the words' cross-entropy"),
    "layers": Key(Whole(1, 1000), "of the language model"),
    "heads": Key(Whole(1, 1024), "of its attention"),
    "strategy": Key(OneOf(KINDS), "how a clip becomes visual tokens"),
    "key": Key(Whole(1, 64), "spatial tokens per frame: a square number"),
    "residual": Key(OneOf(RESIDUALS), "what vtok's motion tokens are made of"),
    "asked": Key(Whole(0, 100), "questions of a category per still and step, drawn from those stored; 0: all"),
    "frames_sampled": Key(Whole(1, 4096), 'number of evenly spaced frames of strategy "frames"'),
    "vtok_understanding.start": Key(_PATH_OR_NONE, 'model to start from, of any strategy; "": fresh weights'),
    "test_clips": Key(_SOME_CLIPS, "clips of the test split to measure on"),
    "latents_kept": Key(Whole(1, 768), "principal components kept of 4 x 8 x 8 pixels"),
    "coder_weight": Key(_WEIGHT, "weight of the terms of the tokens' coder, relative to the flow's"),
    "captions_only": Key(_SHARE, "share of clips whose caption alone the decoder sees"),
    "tokens_only": Key(_SHARE, "share of clips whose tokens alone the decoder sees"),
    "understanding_weight": Key(_WEIGHT, "weight of the questions' cross-entropy, relative to the written tokens'"),
    "token_head": Key(OneOf(HEADS), "how tokens are written: codes (four softmaxes), flow or mse (on latents)"),
    "decoder": Key(_PATH, "the frozen video decoder, with the coder of the tokens"),
    "writer": Key(_PATH_OR_NONE, 'model of vtok_generation that writes the tokens; "": `tokens` says what is shown'),
    "tokens": Key(OneOf(("true", "none")), "without a writer: codes of the real clips, or captions alone"),
    "said": Key(_FLAG, "whether the decoder sees the captions besides the tokens"),
    "judge": Key(Text(form="ruler or a path"), "ruler, or a checkpoint of vtok_understanding"),
    "second_judge": Key(_PATH_OR_NONE, 'a learned judge of a seed no row uses, to measure agreement; "": none'),
    "fvd": Key(_FLAG, "measure gFVD between samples and real clips; needs I3D's weights"),
    "shown": Key(_PATH_OR_NONE, 'file (.npz) of the first samples, for Figure 2; "": none'),
    "vtok_align.batch": Key(_BATCH, "samples per batch"),
    "vtok_align.flow_guidance": Key(Real(0, 1000), "classifier-free, of the decoder; 1: none"),
    "vtok_align.limit": Key(_CLIPS, "only the first prompts, this many, which is not comparable; 0: all"),
    "vtok_align.per_clip": Key(_PATH_OR_NONE, 'folder of every question\'s outcome; "": none'),
    "vtok_align.seed": Key(Whole(0, 2**32 - 1), "sample i draws from (seed, i)"),
    "vtok_align.temperature": Key(Real(0, 1000), "of the tokens written; 0: the likeliest"),
    "vtok_align.work": Key(_PATH, _SHARDS),
    "vtok_generation.fps": Key(Whole(1, 240), "motion tokens per second of vtok"),
    "vtok_align.fps": Key(Whole(1, 240), "motion tokens per second of vtok"),
    "vtok_generation.start": Key(_PATH_OR_NONE, 'model of vtok_understanding to start from; "": fresh weights'),
    "vtok_generation.width": Key(Whole(8, 2**16), "of the language model"),
    "language": Key(_PATH, "folder of a pretrained LlamaForCausalLM, in Hugging Face's format"),
    "further": Key(_FLAG, "train the language model's own weights besides the projector"),
    "vtok_pretrained.fps": Key(Whole(1, 240), "motion tokens per second of vtok"),
    "vtok_pretrained.limit": Key(_CLIPS, "measure only the first clips, this many, which is not comparable; 0: all"),
    "vtok_pretrained.per_clip": Key(_PATH_OR_NONE, 'folder of every question\'s outcome; "": none'),
    "vtok_decoder.layers": Key(Whole(1, 1000), "of the decoder"),
    "vtok_decoder.null": Key(_SHARE, "share of clips trained unconditionally, for guidance"),
    "vtok_decoder.width": Key(Whole(8, 2**16), "of the decoder"),
}

_OTHERWISE = {
    "classes_seen.batch": Key(_BATCH, "clips per batch"),
    "classes_seen.checkpoint": Key(_PATH, "the tokenizer"),
    "classes_seen.classifier": Key(_PATH, "the classifier; its classes are those of its label column"),
    "classes_seen.clips": Key(_SOME_CLIPS, "clips to reconstruct"),
    "curves.batch": Key(_BATCH, "pairs per batch"),
    "curves.bf16": Key(_FLAG, f"{_LOW} of the tokenizer"),
    "curves.checkpoint": Key(_PATH, "proxy that scored the table"),
    "curves.metrics": Key(Text(form="words, separated by commas"), "metrics of every pair"),
    "curves.shard_length": Key(Whole(1, 10**6), "pairs lost at most by an interruption"),
    "curves.table": Key(_PATH, "candidate table of the clips to measure"),
    "curves.work": Key(_PATH, _SHARDS),
    "evaluate.assignment": Key(_RULE, "assignment rule"),
    "evaluate.batch": Key(_BATCH, "clips per batch"),
    "evaluate.bf16": Key(_FLAG, f"{_LOW} of the tokenizer; the metrics' networks always run in float32"),
    "evaluate.checkpoint": Key(_PATH, 'a tokenizer\'s, or "identity"'),
    "evaluate.data": Key(_PATH_OR_NONE, _OWN_VIDEOS),
    "evaluate.fps": Key(_FPS, "frames per second of the moving picture"),
    "evaluate.output": Key(_PATH, "folder of the sheet and the moving picture of `show`"),
    "evaluate.show": Key(Whole(0, 1024), "clips to write with their reconstructions: half worst, half median; 0: none"),
    "evaluate.work": Key(_PATH, _SHARDS),
    "probe_encoder.encoder": Key(_DATA, f"the frozen encoder: {_ENCODERS}"),
    "probe_encoder.probe_data": Key(_DATA, f"labelled clips: {_DATA_WORDS}"),
    "probe_encoder.batch": Key(_BATCH, "clips per batch"),
    "probe_encoder.bf16": Key(Flag(none=True), f"{_LOW} of the encoder; None: on devices with native support"),
    "pretrain_videomae.checkpoint": Key(_PATH, "folder of the finished encoder"),
    "sample.batch": Key(_BATCH, "samples per batch"),
    "sample.bf16": Key(_FLAG, f"{_LOW} of generator and tokenizer; the metrics' networks always run in float32"),
    "sample.data": Key(_PATH_OR_NONE, _OWN_VIDEOS),
    "sample.fps": Key(_FPS, "frames per second of the moving picture"),
    "sample.kept": Key(Whole(0, 2**16), "tokens per latent frame of VideoFlexTok; 0: all"),
    "sample.protocol": Key(OneOf(PROTOCOLS, empty=True), '"": the embedded one of the generator\'s task'),
    "sample.router": Key(_PATH_OR_NONE, 'an adaptive tokenizer\'s, for reconstructions; "": none'),
    "sample.seed": Key(Whole(0, 2**32 - 1), "sample i draws from (seed, i)"),
    "sample.shard_length": Key(Whole(1, 10**6), "samples lost at most by an interruption"),
    "sample.split": Key(
        OneOf(SPLITS, empty=True), "split of the real clips, if not the protocol's; stands in no table"
    ),
    "sample.text": Key(_PATH_OR_NONE, 'language model of captions; "": words or minilm, as in training'),
    "sample.temperature": Key(Real(0.001, 1000), "sampling temperature of symbols"),
    "sample.tokenizer": Key(_PATH, "tokenizer whose codes the generator was trained on"),
    "sample.work": Key(_PATH, _SHARDS),
    "stage2_curation.batch": Key(_BATCH, "clips per batch"),
    "stage2_curation.perceptual_frames": Key(Whole(0, 4096), "frames per block it compares, evenly spaced; 0: all"),
    "stage2_curation.shard_length": Key(Whole(1, 10**6), "clips per shard file"),
    "stage2_curation.tokenizer": Key(_PATH, "proxy that scores"),
    "stage2_curation.work": Key(_PATH, "folder of the shards"),
    "stage3_router.router": Key(OneOf(("vit", "pyramid", "features")), "pyramid: on what pooling loses; features: MLP"),
    "stage3_router.workers": Key(Whole(1, 256), "processes that decode the clips of a table scored with workers"),
    "train_image_encoder.width": Key(Whole(8, 4096), "feature width"),
    "vtok_stills.width": Key(Whole(8, 2**16), "of the language model"),
    "vtok_understanding.fps": Key(Whole(1, 240), "motion tokens per second of vtok"),
    "vtok_understanding.limit": Key(_CLIPS, "measure only the first clips, this many, which is not comparable; 0: all"),
    "vtok_understanding.per_clip": Key(_PATH_OR_NONE, 'folder of every question\'s outcome; "": none'),
    "vtok_understanding.steps": Key(Whole(0, 10**9), "optimiser steps; 0 measures `start` under this strategy"),
    "vtok_understanding.width": Key(Whole(8, 2**16), "of the language model"),
    "stage5_generator.frames": Key(Whole(0, 4096), "frames per clip, in chunks that share some; 0: the tokenizer's"),
    "stage5_generator.kept": Key(Whole(0, 2**16), "most tokens per latent frame of VideoFlexTok; 0: all"),
    "stage5_generator.assignment": Key(OneOf(("router", "uniform")), "what chooses the training clips' assignments"),
}

_VIDEOFLEXTOK = {
    "depths": Key(OneOf(("d12-d12", "d18-d18", "d18-d28"), empty=True), '"": the size\'s own; only of size=paper'),
    "codec": Key(OneOf(("patch-pca", "vidtok"), empty=True), 'latents to work on; "": the size\'s own'),
    "latents": Key(_PATH_OR_NONE, "folder of VidTok's weights, for its latents"),
    "latent_clips": Key(_SOME_CLIPS, "training clips that patch-pca is fitted to"),
    "form": Key(OneOf(FORMS, empty=True), 'how tokens are arranged; "": the size\'s own'),
    "decoder_mask": Key(OneOf(DECODER_MASKS, empty=True), 'attention of the decoder; "": the default'),
    "drop": Key(OneOf(DROPS, empty=True), 'what replaces a dropped token; "": the size\'s own'),
    "registers": Key(Whole(0, 2**16), "most tokens per latent frame; 0: the size's own"),
    "videoflextok_stage1.start": Key(
        OneOf(("whitened", "plain")), "whitened: pooled registers, orthogonal embeddings, open gates"
    ),
    "kept": Key(OneOf(DRAWS), "tokens kept in training: powers of two, uniform, rounded up to powers, or all"),
    "kept_per": Key(OneOf(PER), "whether the number of kept tokens is drawn per batch, clip or frame"),
    "null": Key(_SHARE, "share of clips trained without tokens, for guidance"),
    "noise_mean": Key(Real(-10, 10), "of the logistic-normal noise levels"),
    "noise_deviation": Key(Real(0, 10, "(]"), "of the logistic-normal noise levels"),
    "noise_unshifted": Key(Real(0, 1), "share of noise levels drawn with mean 0 instead"),
    "alignment_stored": Key(_FLAG, "compute its targets once and cache them (toy: 0.1 MB per clip)"),
    "first_probability": Key(Real(0, 1), "probability of giving a clip's first latent frame"),
    "measured_steps": Key(Many(Whole(1, 10000), 1), "flow steps at which the finished tokenizer is measured"),
    "noise_seed": Key(Whole(0, 2**32 - 1), "of the samples that are measured"),
    "flow_steps": Key(Whole(1, 10000), "Euler steps of a flow decoder; 1 gives the mean, more give samples"),
    "flow_guidance": Key(Real(0, 1000), "of a flow decoder, normalised; 1: none"),
    "videoflextok_stage1.data": Key(Text(empty=True, form="a name or a path"), _DATA_WORDS),
    "videoflextok_stage2.data": Key(Text(empty=True, form="a name or a path"), _DATA_WORDS),
    "videoflextok_stage1.frames": Key(Whole(0, 4096), "frames per clip, 4T or 4T + 1; 0: the size's own"),
    "videoflextok_stage2.tokenizer": Key(_PATH, "checkpoint of stage 1"),
    "videoflextok_growing.batch": Key(_BATCH, "samples per batch"),
    "videoflextok_growing.count": Key(Whole(2, 10**6), "samples"),
    "videoflextok_growing.classes": Key(_WORDS, 'classes of the samples, round-robin; "": all of the generator\'s'),
    "videoflextok_growing.bf16": Key(_FLAG, f"{_LOW} of generator and tokenizer"),
    "videoflextok_growing.kept": Key(Many(Whole(1, 2**16), 1), "tokens per latent frame, besides all of them"),
    "videoflextok_growing.shown": Key(_PATH_OR_NONE, 'file (.npz) of the first samples, for Figure 5; "": none'),
    "videoflextok_growing.temperature": Key(Real(0.001, 1000), "sampling temperature of symbols"),
    "videoflextok_growing.work": Key(_PATH, _SHARDS),
    "videoflextok_long_samples.batch": Key(_BATCH, "samples per batch"),
    "videoflextok_long_samples.classifier": Key(_PATH, "classifier applied to successive windows of a clip"),
    "videoflextok_long_samples.count": Key(_SOME_CLIPS, "number of samples and of real clips"),
    "videoflextok_long_samples.bf16": Key(_FLAG, f"{_LOW} of generator and tokenizer"),
    "videoflextok_long_samples.kept": Key(Whole(0, 2**16), "tokens per latent frame; 0: all that it was taught"),
    "videoflextok_long_samples.shown": Key(_PATH_OR_NONE, 'file (.npz) of the first samples, for Figure 8; "": none'),
    "videoflextok_long_samples.temperature": Key(Real(0.001, 1000), "sampling temperature of symbols"),
    "videoflextok_long_samples.work": Key(_PATH, _SHARDS),
    "videoflextok_long.tokenizer": Key(_PATH, "checkpoint of stage 2"),
    "videoflextok_long.kept": Key(Many(Whole(1, 2**16), 1), "tokens per latent frame"),
    "videoflextok_shown.kept": Key(Many(Whole(0, 2**16), 1), "tokens per latent frame; 0: a sample without tokens"),
    "videoflextok_shown.shown": Key(_PATH, "file (.npz) of the clips and their reconstructions, for Figure 2"),
    "videoflextok_shown.tokenizer": Key(_PATH, "checkpoint of either stage"),
    "videoflextok_transfer.tokenizer": Key(_PATH, "checkpoint of stage 2"),
    "videoflextok_transfer.kept": Key(Many(Whole(1, 2**16), 1), "tokens per latent frame"),
    "videoflextok_transfer.show": Key(Whole(1, 1024), "samples to write for inspection"),
}

KEYS: dict[str, Key] = {
    **_VIDEOFLEXTOK,
    **_EVERYWHERE,
    **_CLIP_SETS,
    **_OPTIMISER,
    **_TOKENIZER,
    **_ENCODER,
    **_ROUTER,
    **_GENERATOR,
    **_EVALUATION,
    **_ALL_STAGES,
    **_VTOK,
    **_OTHERWISE,
}


def of(experiment: str, names: Collection[str]) -> dict[str, Key]:
    """Look up each key of an experiment, its own entry before the shared one. Raises Refused for an undeclared key."""
    found = {name: KEYS.get(f"{experiment}.{name}") or KEYS.get(name) for name in sorted(names)}
    if unknown := [name for name, key in found.items() if key is None]:
        raise Refused(f"config key {unknown[0]} is not declared: add it to evatok/experiments/keys.py")
    return {name: key for name, key in found.items() if key is not None}


def settled(key: Key, name: str, value: Any) -> Any:
    """Return `value` as the experiment gets it. Raises Refused, naming the key, outside its domain."""
    try:
        return key.domain.settled(value)
    except Refused as error:
        raise Refused(f"config key {name}: {error}{_way_out(key, name, value)}") from error


def check_together(config: Mapping[str, Any]) -> None:
    """Raise Refused for values that are valid individually but not together."""
    if "save_every" in config and config["save_every"] % config["log_every"]:
        raise Refused(
            f"config key save_every: {config['save_every']} is not a multiple of log_every {config['log_every']}, so a "
            "resumed curve would lose terms"
        )
    for batch, clips in (("batch", "train_clips"), ("router_batch", "scored_clips")):
        if config.get(batch) and 0 < (config.get(clips) or 0) < config[batch]:
            raise Refused(
                f"config key {batch}: {config[batch]} clips per step, but only {config[clips]} clips ({clips})"
            )


def _way_out(key: Key, name: str, value: Any) -> str:
    """Hint how to quote a text that the command line would parse as something else."""
    if key.domain.kind == "str" and type(value) is not str:
        written = [
            word.removeprefix(f"{name}=") for word in sys.argv if word.startswith(f"{name}=")
        ]  # 1e5, not 100000.0
        words = ",".join(map(str, value)) if isinstance(value, list | tuple) else [str(value), *written][-1]
        return f"""; a text that reads as a number or a list needs quotes of its own: {name}='"{words}"'"""
    return ""
