#!/usr/bin/env bash
# Makes what main Tables 2 to 4 read: a generator on the fixed-length and on the adaptive tokenizer for each task, of
# equal steps (for frames half as many, as their sequences carry the given frames as well), for classes one of equal
# compute, for frames one whose given frames have fewer tokens; and what the table of class consistency reads: a pair of
# generators of games. Each is sampled as often as there are validation clips.
# About two and a half hours on 2 cores with STEPS=600. Run again after a kill, it goes on where it stopped.
#
#   bash reproductions/generators.sh          all
#   bash reproductions/generators.sh class    class-to-video alone (or: frames, games; games need evatok[arcade])
set -euo pipefail
cd "$(dirname "$0")/.."
steps=${STEPS:-600}
checkpoints=results/checkpoints
router=$checkpoints/router-toy-pyramid-matched.safetensors

train() { # name rule steps settings...
  local generator=$checkpoints/generator-toy-$1.safetensors
  [ -e "$generator" ] || python -m evatok.experiments.stage5_generator with toy steps="$3" train_clips=4800 \
    assignment="$2" router=$router tokenizer=$checkpoints/final-toy-"$2".safetensors \
    work=results/work/generator-"$1" checkpoint="$generator" "${@:4}"
}

measure() { # name rule settings...
  local folder=results/work/samples-$1
  [ -e "$folder/measured" ] && return
  python -m evatok.experiments.sample with generator=$checkpoints/generator-toy-"$1".safetensors router=$router \
    tokenizer=$checkpoints/final-toy-"$2".safetensors work="$folder" output="$folder/shown" "${@:3}"
  touch "$folder/measured"
}

both() { # name rule steps settings...
  train "$@"
  measure "$1" "$2"
}

asked=${1:-all}
if [ "$asked" = all ] || [ "$asked" = class ]; then
  both class-uniform uniform "$steps" task=class
  both class-router router "$steps" task=class
  # Steps times tokens a clip as the fixed one's: 64 tokens against the router's 46.
  both class-router-longer router $((steps * 64 / 46)) task=class
fi
if [ "$asked" = all ] || [ "$asked" = frames ]; then
  both frames-uniform uniform $((steps / 2)) task=frames
  both frames-router router $((steps / 2)) task=frames
  both frames-router-row router $((steps / 2)) task=frames given=row uniform_tokens=16
fi
if [ "$asked" = all ] || [ "$asked" = games ]; then
  # One tokenizer for both, which knows games, and the router of the paper's weight: it saves what the others save.
  proxy=$checkpoints/proxy-toy.safetensors of_games=$checkpoints/router-toy-pyramid-wq1.2.safetensors
  for rule in uniform router; do
    train games-$rule $rule "$steps" task=class data=arcade label=game tokenizer=$proxy router=$of_games
    measure games-$rule $rule protocol=embedded-games-generation tokenizer=$proxy router=$of_games \
      classifier=$checkpoints/classifier-toy-games.safetensors
  done
  for assignment in uniform:16 router:$of_games; do
    [ -e "results/work/games-${assignment%%:*}.measured" ] || python -m evatok.experiments.evaluate with \
      checkpoint=$proxy assignment="$assignment" protocol=embedded-unseen work=results/work/evaluate-games \
      "metrics='psnr,ssim,l1,mse,rfvd'"
    touch "results/work/games-${assignment%%:*}.measured"
  done
fi
for table in main_table2 main_table3 main_table4 class_consistency; do python reproductions/$table.py; done
