#!/usr/bin/env bash
# Multi30k, any two of de, en, fr: 29,000 image captions. For two cores.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run_corpus.sh" multi30k "--vocab 4000 --max-update 3000" "$@"
