#!/usr/bin/env bash
# WMT 2016 Romanian-English, news: 610,000 pairs. For GPUs.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_corpus.sh" wmt16_roen "--recipe transformer_wmt --vocab 32000 --max-update 100000 --average 10" "$@"
