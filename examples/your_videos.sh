#!/usr/bin/env bash
# From a folder of class folders (or a manifest CSV) of your own videos to a Table 3 of them and a tokenizer taught on them.
#
#     bash examples/your_videos.sh FOLDER_OR_CSV [FPS]
set -euo pipefail
data=$1 fps=${2:-8}
python -m evatok.data show "$data" --fps "$fps" --output clips.png     # look first: what a network will see
python reproductions/table3.py --data "$data" --fps "$fps"             # the shipped proxy and routers on them
python -m evatok.experiments.stage1_proxy with toy data="$data" fps="$fps" train_clips=0 \
  start_from=results/checkpoints/proxy-toy-motion.safetensors          # the shipped proxy, trained on
