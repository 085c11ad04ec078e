#!/bin/sh
# One question, one answer: examples/ask.sh MODEL.gguf "Why is the sky blue?"
set -eu
model=${1:?usage: $0 MODEL.gguf QUESTION} question=${2:-Why is the sky blue?}
exec "${STAGECOACH:-$(dirname "$0")/../stagecoach}" run -m "$model" --chat -p "$question" -n 200
