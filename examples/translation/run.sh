#!/usr/bin/env bash
# Translation from parallel text to BLEU: pieces, training, averaged checkpoint, search, scores.
set -euo pipefail

usage() {
  cat <<'END'
usage: run.sh --data DIR --src LANG --tgt LANG --test PREFIX --out OUT [options] [-- fairseq-train flags]

  --data DIR             holds train.LANG and valid.LANG (or val, dev) of both languages: raw text,
                         UTF-8, one sentence a line
  --test PREFIX          PREFIX.LANG, in DIR or as a path
  --out OUT              everything is written there; a second run continues where one stopped
  --output-alpha A       alpha of the output layer: 1 softmax, 2 sparsemax (default 1.5)
  --attention-alpha A    alpha of all attention (default 1.5)
  --recipe NAME          a file of recipes/ (default transformer)
  --vocab N              sentencepiece pieces of both languages together (default 4000)
  --max-update N         length of the training (default 3000); the learning rate ends with it
  --label-smoothing E    Fenchel-Young label smoothing (default 0)
  --seed N               (default 1)
  --beam N               width of the search (default 5)
  --average N            the last N checkpoints are averaged (default 5)

What follows -- goes to fairseq-train and wins over the recipe, for example `-- --fp16`.
END
}

fail() {
  echo "run.sh: $*" >&2
  exit 2
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
data="" src="" tgt="" test="" out="" recipe=transformer
output_alpha=1.5 attention_alpha=1.5 vocab=4000 max_update=3000
label_smoothing=0 seed=1 beam=5 average=5
flags=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage && exit ;;
    --) shift && flags=("$@") && break ;;
    --data | --src | --tgt | --test | --out | --recipe | --output-alpha | --attention-alpha | \
      --vocab | --max-update | --label-smoothing | --seed | --beam | --average)
      [ $# -gt 1 ] || fail "$1 needs a value"
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    *) fail "unknown option $1 (fairseq's own flags go after --; run.sh --help lists the rest)" ;;
  esac
done
for name in data src tgt test out; do
  [ -n "${!name}" ] || fail "--$name is missing (run.sh --help)"
done
[ "$src" != "$tgt" ] || fail "--src and --tgt are both $src"
[ -f "$here/recipes/$recipe.args" ] ||
  fail "--recipe $recipe: no such recipe, there are: $(cd "$here/recipes" && echo *.args)"
for ((i = 0; i + 1 < ${#flags[@]}; i++)); do # the schedule follows the length that counts
  [ "${flags[i]}" != --max-update ] || max_update=${flags[i + 1]}
done
for name in vocab max_update seed beam average; do
  [[ "${!name}" =~ ^[0-9]+$ ]] || fail "--${name//_/-} must be a whole number, got ${!name}"
done
# a test set is looked for beside the training data, then as a path
prefix=$data/$test
[ -e "$prefix.$src" ] || [ -e "$prefix.$tgt" ] || prefix=$test
test_out=$out/test/$(basename "$test")

export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
. "$root/examples/python.sh"
find_python
plugin=(--user-dir "$root/fairseq_entmax" --task translation ${cpu:+"$cpu"})

# logged LOG COMMAND...: its output goes to the log, which is shown if it fails
logged() {
  local log=$1
  shift
  "$@" > "$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "$(basename "$1") failed, the whole log is $log"
  }
}

mkdir -p "$out"
"$python" "$here/prepare.py" train --data "$data" --src "$src" --tgt "$tgt" --vocab "$vocab" \
  --out "$out/text" --setting src="$src" tgt="$tgt" recipe="$recipe" seed="$seed" \
  output-alpha="$output_alpha" attention-alpha="$attention_alpha" \
  label-smoothing="$label_smoothing"
"$python" "$here/prepare.py" test --prefix "$prefix" --src "$src" --tgt "$tgt" \
  --model "$out/text/spm.model" --out "$test_out"
if [ ! -f "$out/bin/.done" ]; then
  rm -f "$out/bin/dict.$src.txt" "$out/bin/dict.$tgt.txt" # fairseq overwrites all but these
  logged "$out/preprocess.log" "$scripts/fairseq-preprocess" -s "$src" -t "$tgt" \
    --joined-dictionary --trainpref "$out/text/train" --validpref "$out/text/valid" \
    --destdir "$out/bin"
  touch "$out/bin/.done"
fi
logged "$test_out/preprocess.log" "$scripts/fairseq-preprocess" -s "$src" -t "$tgt" \
  --srcdict "$out/bin/dict.$src.txt" --tgtdict "$out/bin/dict.$tgt.txt" \
  --testpref "$test_out/test" --destdir "$test_out/bin"

# small corpora get small batches: at least 200 in an epoch, of 512 to 2048 tokens
tokens=$(($(wc -w < "$out/text/train.$tgt") / 200))
tokens=$((tokens < 512 ? 512 : tokens > 2048 ? 2048 : tokens))
interval=$((max_update < 25 ? 1 : max_update / 25))
train=("$scripts/fairseq-train" "$out/bin" "${plugin[@]}"
  --optimizer adam --adam-betas '(0.9,0.98)' --lr-scheduler polynomial_decay
  --warmup-updates $((max_update / 10)) --total-num-update "$max_update"
  --max-update "$max_update" --max-tokens "$tokens"
  $(grep -v '^#' "$here/recipes/$recipe.args")
  --criterion entmax_loss --label-smoothing "$label_smoothing"
  --output-alpha "$output_alpha" --attention-alpha "$attention_alpha" --seed "$seed"
  --save-dir "$out/checkpoints" --no-epoch-checkpoints --save-interval-updates "$interval"
  --keep-interval-updates "$average" --save-interval 1000000 --validate-interval 1000000
  --skip-invalid-size-inputs-valid-test
  --log-format simple --log-interval $((interval < 100 ? interval : 100)) "${flags[@]}")
if [ "$(cat "$out/trained" 2> /dev/null)" != "${train[*]}" ]; then
  echo "training, the log is $out/train.log ..."
  set +e
  "${train[@]}" 2>&1 | tee -a "$out/train.log" | grep -E --line-buffered 'train_inner|valid on'
  status=${PIPESTATUS[0]}
  set -e
  if [ "$status" != 0 ]; then
    tail -n 20 "$out/train.log" >&2
    fail "fairseq-train failed, the whole log is $out/train.log"
  fi
  "$python" "$here/average.py" "$out/checkpoints" --last "$average" --out "$out/averaged.pt"
  echo "run.sh --src $src --tgt $tgt --recipe $recipe --output-alpha $output_alpha \
--attention-alpha $attention_alpha --vocab $vocab --max-update $max_update \
--label-smoothing $label_smoothing --average $average --seed $seed${flags[*]:+ -- ${flags[*]}}" \
    > "$out/experiment.txt"
  echo "${train[*]}" > "$out/trained"
fi

found=$test_out/beam$beam
mkdir -p "$found"
decode=("${plugin[@]}" --path "$out/averaged.pt" --max-tokens 4096)
echo "decoding $(wc -l < "$test_out/reference") lines with beam $beam ..."
logged "$found/generated.part" "$scripts/fairseq-generate" "$test_out/bin" "${decode[@]}" \
  --gen-subset test --beam "$beam" --skip-invalid-size-inputs-valid-test
mv "$found/generated.part" "$found/generated.txt"
logged "$test_out/validated.json" "$scripts/fairseq-validate" "$test_out/bin" "${decode[@]}" \
  --valid-subset test --log-format json --skip-invalid-size-inputs-valid-test
"$python" "$here/score.py" "$found" --test "$test_out" --model "$out/text/spm.model" --tgt "$tgt" \
  --train-log "$out/train.log"
