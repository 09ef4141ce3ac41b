#!/usr/bin/env bash
# IWSLT 2014 or 2017, TED talks: 160,000 to 210,000 pairs, fairseq's split. For one GPU.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_corpus.sh" iwslt "--recipe transformer_iwslt --vocab 10000 --max-update 50000 --average 10" "$@"
