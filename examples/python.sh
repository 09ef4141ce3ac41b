# Sourced by the run scripts, with $root the clone: finds a python that has what they need.
# Sets $python, $scripts (the folder of fairseq's commands) and $cpu (--cpu where torch sees no GPU).
find_python() {
  local found="" candidates=(python python3 "$root/.venv/bin/python")
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for python in "${candidates[@]}"; do
    found=$("$python" -c '
import importlib.util, sysconfig, torch
for name in ("fairseq", "sacrebleu", "sentencepiece"):
    assert importlib.util.find_spec(name)
print(sysconfig.get_path("scripts"), "" if torch.cuda.is_available() else "--cpu")' 2> /dev/null) && break
  done
  if [ -z "$found" ]; then
    echo "run.sh: no torch, fairseq, sacrebleu and sentencepiece in ${candidates[*]}: install" \
      "this package (pip install .), activate its environment, or set PYTHON" >&2
    exit 2
  fi
  read -r scripts cpu <<< "$found"
}
