"""Files on disk, complete or absent: records, checkpoints, shards, per-clip values, and file names."""
