"""What the tests of the pipeline run commands with, and what they compare."""
