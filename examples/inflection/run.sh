#!/usr/bin/env bash
# Morphological inflection with one model for many languages: prepare, train, decode, report.
#
#   examples/inflection/run.sh --data conll2018 --languages "german finnish turkish" \
#     --setting medium --output-alpha 1.5 --attention-alpha 1.5 --out inflection
#
# Everything goes into --out; a second run continues where the first was stopped.
set -euo pipefail

usage() {
  cat << 'END'
usage: run.sh --data DIR --out DIR [options] [-- flags of fairseq-train]
  --data DIR           clone of sigmorphon/conll2018, or a folder with LANGUAGE-train-SETTING,
                       LANGUAGE-dev and LANGUAGE-test
  --out DIR            where everything is written
  --languages "A B"    languages of the one model, or all (default)
  --setting S          low, medium (default) or high
  --output-alpha A     1 is softmax, 1.5 entmax (default), 2 sparsemax
  --attention-alpha A  likewise (default 1.5)
  --arch ARCH          lstm_entmax (default) or two_headed_lstm_entmax
  --eval-split S       dev (default) or test
  --ensemble N         models, with seeds S, S + 1, ... (default 1)
  --seed S             default 1
  --max-update N       updates of each model (default: 1500 and one for every five pairs)
  --beam N             default 5
  --quick              a smaller model, at most 1500 updates: minutes for a few languages
END
}
die() {
  echo "run.sh: $1" >&2
  exit 2
}

data="" out="" languages=all setting=medium output_alpha=1.5 attention_alpha=1.5 arch=lstm_entmax
eval_split=dev ensemble=1 seed=1 max_update="" beam=5 quick=""
while [ $# -gt 0 ]; do
  case $1 in
    --) shift && break ;;
    --help | -h) usage && exit ;;
    --quick) quick=yes && shift ;;
    --data | --out | --languages | --setting | --output-alpha | --attention-alpha | --arch | \
      --eval-split | --ensemble | --seed | --max-update | --beam)
      [ $# -gt 1 ] || die "$1 needs a value"
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    *) usage >&2 && die "unknown option: $1" ;;
  esac
done
[ -n "$data" ] || die "--data is missing: a clone of sigmorphon/conll2018"
[ -d "$data" ] || die "--data $data: no such folder"
[ -n "$out" ] || die "--out is missing"
for number in "$ensemble" "$seed" "$beam" "${max_update:-1}"; do
  [[ $number =~ ^[0-9]+$ ]] || die "--ensemble, --seed, --beam and --max-update are whole numbers, got $number"
done
[ "$ensemble" -gt 0 ] && [ "$beam" -gt 0 ] && [ "${max_update:-1}" -gt 0 ] ||
  die "--ensemble, --beam and --max-update are at least 1"
for alpha in "$output_alpha" "$attention_alpha"; do
  [[ $alpha =~ ^[1-9][0-9]*(\.[0-9]*)?$ ]] ||
    die "--output-alpha and --attention-alpha are numbers >= 1 (1 is softmax), got $alpha"
done
data=$(cd "$data" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
. examples/python.sh
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
find_python
# one thread: two that wait for each other are no faster here, and far slower on a busy machine
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

# A folder holds one experiment.
experiment="run.sh --languages '$languages' --setting $setting --output-alpha $output_alpha \
--attention-alpha $attention_alpha --arch $arch --seed $seed${quick:+ --quick}\
${max_update:+ --max-update $max_update}${*:+ -- $*}"
if [ -f "$out/experiment.txt" ] && [ "$(cat "$out/experiment.txt")" != "$experiment" ]; then
  ! compgen -G "$out/model-*/checkpoint*" > /dev/null ||
    die "$out holds another experiment (see its experiment.txt): choose another --out"
  rm -rf "$out/text" "$out/bin" "$out"/model-* # of one that trained nothing
fi
echo "$experiment" > "$out/experiment.txt"

# Runs a command with its output in a file, and shows the end of it if it fails.
logged() {
  local log=$1
  shift
  "$@" >> "$log" 2>&1 || { tail -n 15 "$log" >&2 && die "failed; everything it said is in $log"; }
}

if [ ! -f "$out/text/.done" ]; then
  "$python" scripts/prepare_inflection.py prepare "$data" "$out/text" --languages "$languages" \
    --setting "$setting" --eval-split "$eval_split"
  touch "$out/text/.done"
fi
[ -f "$out/text/$eval_split.tsv" ] || die "$data has no $eval_split files for these languages"
if [ ! -f "$out/bin/.done" ]; then
  testpref=$out/text/dev
  [ ! -f "$out/text/test.tsv" ] || testpref+=,$out/text/test
  rm -rf "$out/bin"
  logged "$out/preprocess.log" "$python" -m fairseq_cli.preprocess --joined-dictionary \
    --source-lang lemma --target-lang form --trainpref "$out/text/train" \
    --validpref "$out/text/valid" --testpref "$testpref" --destdir "$out/bin"
  touch "$out/bin/.done"
fi

plugin=(--user-dir "$PWD/fairseq_entmax" ${cpu:+"$cpu"})
pairs=$(wc -l < "$out/text/train.form")
updates=$((1500 + pairs / 5))
embedding=128 encoder=200 decoder=400
if [ -n "$quick" ]; then
  embedding=64 encoder=128 decoder=256
  updates=$((updates < 1500 ? updates : 1500))
fi
updates=${max_update:-$updates}
interval=$((updates < 2500 ? 250 : updates / 10))

checkpoints=""
for ((i = 0; i < ensemble; i++)); do
  folder=$out/model-$((seed + i))
  if [ ! -f "$folder/.done" ]; then
    mkdir -p "$folder"
    echo "training $((i + 1)) of $ensemble: $updates updates, log in $folder/train.log"
    SECONDS=0
    logged "$folder/train.log" "$python" -m fairseq_cli.train "$out/bin" "${plugin[@]}" \
      --task inflection --eval-inflection --arch "$arch" --criterion entmax_loss \
      --output-alpha "$output_alpha" --attention-alpha "$attention_alpha" \
      --encoder-bidirectional --share-all-embeddings \
      --encoder-embed-dim $embedding --decoder-embed-dim $embedding \
      --decoder-out-embed-dim $embedding \
      --encoder-hidden-size $encoder --decoder-hidden-size $decoder --dropout 0.1 \
      --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1 --batch-size 64 \
      --lr 0.003 --lr-scheduler polynomial_decay --warmup-updates 200 \
      --total-num-update "$updates" --max-update "$updates" --seed $((seed + i)) \
      --best-checkpoint-metric accuracy --maximize-best-checkpoint-metric \
      --validate-interval 1000000 --validate-interval-updates "$interval" \
      --save-interval 1000000 --save-interval-updates "$interval" --keep-interval-updates 1 \
      --no-epoch-checkpoints --save-dir "$folder" \
      --distributed-world-size 1 --log-format simple --log-interval 100 "$@"
    echo "$SECONDS" > "$folder/.done"
  fi
  checkpoints+=${checkpoints:+:}$folder/checkpoint_best.pt
done

subset=test
[ "$eval_split" = dev ] || subset=test1
answers=$out/$eval_split-beam$beam-models$ensemble
if [ ! -f "$answers.txt" ]; then
  echo "decoding $eval_split ..."
  "$python" -m fairseq_cli.generate "$out/bin" "${plugin[@]}" --task translation \
    --path "$checkpoints" --gen-subset $subset --beam "$beam" --nbest "$beam" --batch-size 256 \
    --max-len-a 2 --max-len-b 20 --unnormalized --scoring inflection > "$answers.part" 2> "$answers.log" ||
    { tail -n 15 "$answers.log" >&2 && die "failed; everything it said is in $answers.log"; }
  mv "$answers.part" "$answers.txt"
fi
"$python" scripts/prepare_inflection.py restore "$out/text/$eval_split.tsv" "$answers.txt" \
  "$out/predictions-$eval_split"
"$python" examples/inflection/report.py "$answers.txt" "$out/bin" --checkpoints "$checkpoints" \
  --languages "$out/text/languages.txt" --report "$answers-report" ${cpu:+"$cpu"}
