#!/usr/bin/env bash
# Makes what main Tables 1 and 5 and supplement Table 1 read: one tokenizer for each rule of assignment and recipe, all
# of equal steps, measured on the embedded validation clips. About an hour and a half on 2 cores with STEPS=600.
# Run again after a kill, it goes on where it stopped.
#
#   bash reproductions/finals.sh              all
#   bash reproductions/finals.sh main_table1  what main Table 1 needs; the rest is main Table 5's
set -euo pipefail
cd "$(dirname "$0")/.."
steps=${STEPS:-600} seed=${SEED:-0}
folder=results/work/finals-$steps-$seed
router=results/checkpoints/router-toy-pyramid-matched.safetensors
mkdir -p "$folder"

train() { # name settings...
  [ -e "$folder/$1.safetensors" ] || python -m evatok.experiments.stage4_final with toy steps="$steps" seed="$seed" \
    work="$folder/$1" checkpoint="$folder/$1.safetensors" router=$router "${@:2}"
}

measure() { # name assignment
  [ -e "$folder/$1-${2%%:*}.measured" ] && return
  python -m evatok.experiments.evaluate with checkpoint="$folder/$1.safetensors" assignment="$2" \
    work="$folder/evaluate" "metrics='psnr,ssim,l1,mse,st_lpips_alex,rfvd,kvd'"
  touch "$folder/$1-${2%%:*}.measured"
}

train random-transformer assignment=random discriminator=transformer
for discriminator in transformer semantic; do
  train uniform-$discriminator assignment=uniform discriminator=$discriminator
  train router-$discriminator assignment=router discriminator=$discriminator
done
measure random-transformer uniform:16
measure random-transformer router:$router
for discriminator in transformer semantic; do
  measure uniform-$discriminator uniform:16
  measure router-$discriminator router:$router
done
if [ "${1:-all}" = all ]; then
  for discriminator in transformer semantic; do
    train uniform-$discriminator-unaligned assignment=uniform discriminator=$discriminator alignment=none
    measure uniform-$discriminator-unaligned uniform:16
  done
fi
for table in main_table1 main_table5 table1 table2; do python reproductions/$table.py; done
