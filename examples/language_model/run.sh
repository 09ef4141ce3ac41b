#!/usr/bin/env bash
. "$(dirname "${BASH_SOURCE[0]}")/../python.sh" && run_python "$(dirname "${BASH_SOURCE[0]}")/run.py" "$@"
