"""A vision-language model that reads videos: a folder in Hugging Face's format, such as Qwen2.5-VL or LLaVA-NeXT.

The question goes through the model's own chat template with the frames as one video; the answer is the most likely
option letter as the first word of the reply.

Legend: T frames, O options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from evatok.alignment.benchmarks.items import BenchmarkError
from evatok.storage.files import sha256_file

_WEIGHTS = "*.safetensors"
_MISSING = "name a folder with a vision-language model in Hugging Face's format"


class VisionLanguageModel:
    """A model and its processor.

    Attributes:
        identity: name of the folder and hash of its weights, for records.
    """

    def __init__(self, model: Any, processor: Any, identity: dict[str, str], device: torch.device | str) -> None:
        self.model, self.processor, self.identity, self.device = model, processor, identity, device

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Self:
        """Load a folder, in float32 on a CPU and in bfloat16 elsewhere.

        Raises:
            BenchmarkError: no such folder, no weights, damaged ones, a processor without videos, or a model that
                reads no videos.
        """
        if not (folder / "config.json").is_file():
            raise BenchmarkError(f"{folder}: no config.json; {_MISSING}")
        files = sorted(folder.glob(_WEIGHTS))
        if not files:
            raise BenchmarkError(f"{folder}: a configuration without weights ({_WEIGHTS})")
        from transformers import AutoModelForImageTextToText, AutoProcessor

        kind = torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16
        try:
            processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
            reader: Any = AutoModelForImageTextToText
            model, info = reader.from_pretrained(folder, local_files_only=True, dtype=kind, output_loading_info=True)
        except Exception as error:  # readers of the format raise nearly anything for a damaged folder
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BenchmarkError(f"{folder}: cannot be loaded ({reason}); {_MISSING}") from error
        if info["missing_keys"]:
            # transformers would continue with random weights instead.
            raise BenchmarkError(f"{folder}: {len(info['missing_keys'])} weights are missing; download it again")
        if getattr(processor, "video_processor", None) is None:
            raise BenchmarkError(f"{folder}: its processor ({type(processor).__name__}) takes no videos")
        identity = {"name": folder.name, "sha256": "+".join(sha256_file(file) for file in files)}
        return cls(model.to(device).eval(), processor, identity, device)

    @torch.no_grad()
    def likelihoods(self, frames: np.ndarray, prompt: str, letters: str) -> np.ndarray:
        """(O,) log-likelihoods of each letter as the reply to a prompt about a video.

        Args:
            frames: (T, H, W, 3) uint8.
        """
        content = [{"type": "video"}, {"type": "text", "text": prompt}]
        told = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(told, add_generation_prompt=True, tokenize=False)
        # Frames are already chosen: the processor's own sampling would drop some.
        video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        given = self.processor(text=[text], videos=[video], return_tensors="pt", do_sample_frames=False)
        logits = self.model(**given.to(self.device), use_cache=False).logits[0, -1].float()
        return logits.log_softmax(-1)[self._numbers(letters)].cpu().numpy()

    def answer(self, frames: np.ndarray, prompt: str, letters: str) -> int:
        """Return the index of the likeliest option; arguments as in `likelihoods`."""
        return int(self.likelihoods(frames, prompt, letters).argmax())

    def _numbers(self, letters: str) -> list[int]:
        """Return the token of each letter. Raises BenchmarkError if two share one and cannot be told apart."""
        tokenizer = self.processor.tokenizer
        found = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in letters]
        firsts = [numbers[0] for numbers in found if numbers]
        if len(set(firsts)) < len(letters):
            raise BenchmarkError(f"{self.identity['name']}: its tokenizer does not tell the letters {letters} apart")
        return firsts
