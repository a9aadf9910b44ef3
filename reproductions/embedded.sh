#!/usr/bin/env bash
# Makes what Table 3 and main Figures 4 and 5 read: proxy, candidate tables, routers, evaluations, curves. Some 6 hours
# on 2 cores (`python -m evatok.experiments.make --dry-run table3 curves` says what is missing). Needs the extra
# evatok[arcade] for the games. Run again after a kill, it resumes.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m evatok.experiments.make table3 curves
for item in table3 main_figure4 main_figure5 readme; do python reproductions/$item.py; done
