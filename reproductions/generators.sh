#!/usr/bin/env bash
# Makes what main Tables 2 to 4 read: a generator on the fixed-length and on the adaptive tokenizer for each task, of
# equal steps (for frames half as many, as their sequences carry the given frames as well), and for classes one of equal
# compute, each sampled as often as there are validation clips.
# About an hour and a half on 2 cores with STEPS=600. Run again after a kill, it goes on where it stopped.
#
#   bash reproductions/generators.sh          all
#   bash reproductions/generators.sh class    class-to-video alone (or: frames)
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

for task in class frames; do
  [ $task = class ] && of_task=$steps || of_task=$((steps / 2))
  case ${1:-$task} in "$task") ;; *) continue ;; esac
  for rule in uniform router; do
    train $task-$rule $rule "$of_task" task=$task
    measure $task-$rule $rule
  done
done
if [ "${1:-class}" = class ]; then
  # Steps times tokens a clip as the fixed one's: 64 tokens against the router's 46.
  train class-router-longer router $((steps * 64 / 46)) task=class
  measure class-router-longer router
fi
for table in main_table2 main_table3 main_table4; do python reproductions/$table.py; done
