#!/usr/bin/env bash
# Learn to inflect German nouns and Russian verbs: data, training, decoding, report.
# Everything goes into $OUT (default: demo/); a second run continues where the first was stopped.
set -euo pipefail
cd "$(dirname "$0")/../.."
OUT=${OUT:-demo}
UPDATES=${UPDATES:-1800}
# one thread: two that wait for each other are no faster here, and far slower on a busy machine
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
plugin=(--user-dir fairseq_entmax --cpu)

if [ ! -f "$OUT/data/train.form" ]; then
  python examples/demo/prepare.py "$OUT/data"
fi
if [ ! -f "$OUT/bin/.done" ]; then
  fairseq-preprocess --source-lang lemma --target-lang form --joined-dictionary \
    --trainpref "$OUT/data/train" --validpref "$OUT/data/valid" --testpref "$OUT/data/test" \
    --destdir "$OUT/bin" > "$OUT/preprocess.log" 2>&1 \
    || { cat "$OUT/preprocess.log" >&2; exit 1; }
  touch "$OUT/bin/.done"
fi

fairseq-train "$OUT/bin" "${plugin[@]}" --task translation \
  --arch lstm_entmax --criterion entmax_loss --output-alpha 1.5 --attention-alpha 1.5 \
  --encoder-bidirectional --share-all-embeddings --dropout 0.2 \
  --encoder-embed-dim 64 --decoder-embed-dim 64 --decoder-out-embed-dim 64 \
  --encoder-hidden-size 128 --decoder-hidden-size 256 \
  --optimizer adam --adam-betas '(0.9, 0.98)' --clip-norm 1 --batch-size 64 \
  --lr 0.004 --lr-scheduler polynomial_decay --warmup-updates 200 \
  --total-num-update "$UPDATES" --max-update "$UPDATES" --stop-time-hours 0.083 \
  --seed 1 --no-epoch-checkpoints --save-dir "$OUT/checkpoints" --log-interval 50 \
  2>&1 | python examples/demo/progress.py "$OUT/train.log" "$UPDATES"

decode=(--path "$OUT/checkpoints/checkpoint_best.pt" --batch-size 128)
echo "decoding the test words ..."
fairseq-generate "$OUT/bin" "${plugin[@]}" "${decode[@]}" --gen-subset test --beam 5 --nbest 5 \
  > "$OUT/generated.part" 2> "$OUT/generate.log" || { cat "$OUT/generate.log" >&2; exit 1; }
mv "$OUT/generated.part" "$OUT/generated.txt"
fairseq-validate "$OUT/bin" "${plugin[@]}" --task translation "${decode[@]}" --valid-subset test --log-format json \
  > "$OUT/validated.json" 2>&1 || { cat "$OUT/validated.json" >&2; exit 1; }
python -m fairseq_entmax report "$OUT/bin" --path "$OUT/checkpoints/checkpoint_best.pt" --cpu \
  --title "Inflection of German nouns and Russian verbs" --log "$OUT/train.log" --sentences 100 \
  --out "$OUT/report.html"
python examples/demo/report.py "$OUT/generated.txt" "$OUT/validated.json" "$OUT/report.md" \
  "$OUT/report.html"
