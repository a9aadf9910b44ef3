"""What lies on disk, complete or absent: records, checkpoints, shards, values per clip, and names of files."""
