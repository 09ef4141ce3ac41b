# Sourced by the run scripts: `run_python SCRIPT ARGUMENTS` hands over to a python that has what
# they need. It only looks for the packages, so that a wrong option is answered at once.
run_python() {
  local python candidates=(python python3 "$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/python")
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for python in "${candidates[@]}"; do
    if "$python" -c 'from importlib.util import find_spec
assert all(map(find_spec, ("torch", "fairseq", "sacrebleu", "sentencepiece")))' 2> /dev/null; then
      exec "$python" "$@"
    fi
  done
  echo "run.sh: no torch, fairseq, sacrebleu and sentencepiece in ${candidates[*]}: install" \
    "this package (pip install .), activate its environment, or set PYTHON" >&2
  exit 2
}
