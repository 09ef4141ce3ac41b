#!/usr/bin/env bash
# KFTT Japanese-English, articles about Kyoto: 440,000 pairs. For GPUs.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_corpus.sh" kftt "--recipe transformer_wmt --vocab 16000 --max-update 100000 --average 10" "$@"
