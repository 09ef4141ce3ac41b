#!/usr/bin/env bash
# run_corpus.sh CORPUS "OPTIONS" DOWNLOADED SRC TGT OUT [more options of run.sh]: what the script of
# each corpus does with its arguments.
set -euo pipefail
corpus=$1 options=$2
shift 2
if [ $# -lt 4 ]; then
  echo "usage: $corpus.sh DOWNLOADED SRC TGT OUT [options of run.sh]" >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../python.sh"
(run_python "$here/corpora.py" "$corpus" "$1" --src "$2" --tgt "$3" --out "$4/data")
# shellcheck disable=SC2086 # the options are words
exec bash "$here/run.sh" --data "$4/data" --src "$2" --tgt "$3" --test test --out "$4" \
  $options "${@:5}"
