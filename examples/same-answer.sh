#!/bin/sh
# A seed names an answer, whatever computes it: examples/same-answer.sh MODEL.gguf
set -eu
model=${1:?usage: $0 MODEL.gguf} program=${STAGECOACH:-$(dirname "$0")/../stagecoach}
tell() { "$program" run -m "$model" -p "Once upon a time" -n 40 --temp 0.8 --seed 7 "$@"; }
first=$(tell --threads 1)
second=$(tell)
echo "$first"
[ "$first" = "$second" ] || { echo "the two answers differ" >&2; exit 1; }
echo "(twice the same)"
