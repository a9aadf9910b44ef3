#!/usr/bin/env bash
# Makes everything Table 3 ships: proxy, candidate tables, routers, records, table. Some 6 hours on 2 cores.
# Needs the extra evatok[arcade] for the unseen clips. Run again after a kill, it goes on where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
tables=results/tables/candidates
work=results/work/embedded
proxy=results/checkpoints/proxy-toy-motion.safetensors

stage() { python -m "evatok.experiments.$1" with embedded "${@:2}"; }

# Two single-threaded processes score faster than one with two threads.
score() { # set split clips table
  for shard in 0/2 1/2; do
    stage stage2_curation threads=1 shard_length=32 data="$1" split="$2" clips="$3" table="$4" shard=$shard &
  done
  wait
  # Whichever finished last has merged the table, unless both saw the other unfinished.
  [ -e "$4" ] || stage stage2_curation shard_length=32 data="$1" split="$2" clips="$3" table="$4"
}

route() { # kind point settings...
  stage stage3_router work=$work/router-"$1-$2" checkpoint=results/checkpoints/router-toy-"$1-$2".safetensors "${@:3}"
}

pyramid() { # point settings...
  route pyramid "$1" target=soft router=pyramid steps=3000 batch=64 learning_rate=1e-3 dropout=0.2 save_every=500 "${@:2}"
}

stage stage1_proxy
for split in validation test; do score freedoom $split 320 $tables/freedoom-$split.parquet; done
for games in seen held-out; do score arcade-$games validation 320 $tables/arcade-$games-validation.parquet; done
rm -f $tables/arcade-validation.parquet # scored by a proxy that saw all games
score freedoom train "${TRAIN_CLIPS:-3072}" $work/train.parquet
for point in matched wq1.2; do
  share=0.704
  [ $point = matched ] || share=0.0
  route hard $point token_share=$share target=hard steps=1000
  route soft $point token_share=$share target=soft steps=1000
  pyramid $point token_share=$share
  route features $point token_share=$share target=soft router=features steps=1500 learning_rate=2e-3
done
for w_q in 0.8 1.4 1.8; do # more points of the routers' curve in main Figure 4
  pyramid wq$w_q token_share=0.0 w_q=$w_q
done
for assignment in uniform:32 uniform:64 router:results/checkpoints/router-toy-pyramid-matched.safetensors; do
  python -m evatok.experiments.evaluate with assignment=$assignment work=$work/evaluate tokenizer=$proxy \
    "metrics='psnr,ssim,l1,mse,rfvd,kvd,rfvd_extrapolated'"
done
stage curves
python reproductions/table3.py
python reproductions/main_figure4.py
python reproductions/main_figure5.py
python reproductions/readme.py
