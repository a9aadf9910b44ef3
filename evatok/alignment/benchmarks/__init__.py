"""Multiple-choice questions about videos that a user brings, put to a vision-language model that the user names.

Seven benchmarks of VTok's Table 3 and the form of its TV-Align: readers of what their authors publish, the wording of a
question, and scoring by the likelihood of the options' letters. Nothing is downloaded.
"""

from evatok.alignment.benchmarks.items import BenchmarkError, Item
from evatok.alignment.benchmarks.readers import READERS, read
from evatok.alignment.benchmarks.wording import prompt_of

__all__ = ["READERS", "BenchmarkError", "Item", "prompt_of", "read"]
