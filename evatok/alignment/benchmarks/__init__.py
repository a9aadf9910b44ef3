"""Multiple-choice questions about a user's videos, put to a vision-language model of the user's choice.

Seven benchmarks of VTok's Table 3 and the format of its TV-Align: readers of the published annotations, question
wording, and scoring by the likelihood of the options' letters. Nothing is downloaded.
"""

from evatok.alignment.benchmarks.items import BenchmarkError, Item
from evatok.alignment.benchmarks.readers import READERS, read
from evatok.alignment.benchmarks.wording import prompt_of

__all__ = ["READERS", "BenchmarkError", "Item", "prompt_of", "read"]
