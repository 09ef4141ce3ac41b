#!/usr/bin/env bash
# Installs the wheel, the sdist and the source itself (-e), each into an empty environment, and uses
# them from another folder: check_install.sh [wheel] [sdist] [editable]. Some minutes each and 3 GB,
# so no part of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONPATH
PYTHON="${PYTHON:-python3}"
CLONE="$PWD"
WANTED="${*:-wheel sdist editable}"
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT

# from a copy of what git knows: a build leaves its folders there
mkdir "$WORK/source"
git ls-files -z | xargs -0 cp --parents -t "$WORK/source"

"$PYTHON" -m venv "$WORK/build"
"$WORK/build/bin/python" -m pip install --quiet build
(cd "$WORK/source" && "$WORK/build/bin/python" -m build --outdir "$WORK/dist" &> "$WORK/build.log") \
  || { cat "$WORK/build.log"; exit 1; }
ls "$WORK/dist"
tar tzf "$WORK"/dist/*.tar.gz > "$WORK/sdist.list"
for part in tests/conftest.py docs/conf.py examples/demo/run.sh CITATION.cff Makefile; do
  grep -q "/$part\$" "$WORK/sdist.list" || { echo "the sdist lacks $part" >&2; exit 1; }
done
ls "$WORK"/dist/*-py3-none-*.whl > /dev/null

try() { # NAME, what pip installs
  local bin="$WORK/$1/bin" name="$1"
  shift
  [[ " $WANTED " = *" $name "* ]] || return 0
  "$PYTHON" -m venv "$WORK/$name"
  "$bin/python" -m pip install --quiet --constraint constraints.txt torch numpy
  "$bin/python" -m pip install --quiet --constraint constraints.txt "$@"
  if [ "$name" = editable ]; then # as make install does
    ln -s "$WORK/source/fairseq_entmax" "$("$bin/python" -c "import sysconfig as s; print(s.get_path('purelib'))")"
  fi
  mkdir "$WORK/elsewhere"
  (
    cd "$WORK/elsewhere"
    "$bin/python" "$CLONE/scripts/check_install.py"
    "$bin/fairseq-entmax" --help > /dev/null
    printf 'a b c\nb c\n' | tee x.en > x.de
    "$bin/fairseq-preprocess" -s de -t en --trainpref x --validpref x --destdir bin > log 2>&1
    "$bin/fairseq-train" bin --user-dir fairseq_entmax --arch transformer_entmax_tiny --cpu \
      --criterion entmax_loss --optimizer adam --max-tokens 100 --max-update 2 > log 2>&1
    "$bin/fairseq-generate" bin --user-dir fairseq_entmax --path checkpoints/checkpoint_best.pt \
      --gen-subset valid --cpu > log 2>&1
  ) || { cat "$WORK/elsewhere/log"; echo "failed: $name" >&2; exit 1; }
  rm -rf "$WORK/$name" "$WORK/elsewhere"
  echo "works: $name"
}

try wheel "$WORK"/dist/*.whl
try sdist "$WORK"/dist/*.tar.gz
try editable --editable "$WORK/source"
