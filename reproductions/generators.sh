#!/usr/bin/env bash
# Makes what main Tables 2 to 4 and the table of class consistency read: generators on the fixed-length and on the
# adaptive tokenizer for each task, of equal steps, and as many samples as there are validation clips.
# Run again after a kill, it resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m evatok.experiments.make generators
for table in main_table2 main_table3 main_table4 class_consistency; do python reproductions/$table.py; done
