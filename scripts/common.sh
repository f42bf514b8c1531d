# shellcheck shell=bash
# Sourced by the scripts beside it: where the checkout is, messages, Python, number of jobs.
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck disable=SC2034  # read by setup
torch_version=2.11.0
# Named relative to the caller's folder; the scripts work in the checkout.
if [[ -n ${SFUMATO_TORCH_DIR:-} ]]; then
  SFUMATO_TORCH_DIR=$(realpath -m -- "$SFUMATO_TORCH_DIR")
  export SFUMATO_TORCH_DIR
fi
if [[ -n ${SFUMATO_FASHION_MNIST:-} ]]; then
  SFUMATO_FASHION_MNIST=$(realpath -m -- "$SFUMATO_FASHION_MNIST")
  export SFUMATO_FASHION_MNIST
fi

say() { printf '[%s] %s\n' "${0##*/}" "$*"; }

# die STATUS MESSAGE: 2 for what the caller must change, 1 for what went wrong.
die() {
  local status=$1
  shift
  printf '[%s] error: %s\n' "${0##*/}" "$*" >&2
  exit "$status"
}

# The comment block at the head of a script is its --help.
show_help() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0"; }

# Prints a Python that has wheels of our torch and can make virtual environments.
find_python() {
  local candidate
  for candidate in "${SFUMATO_PYTHON:-python3}" /usr/bin/python3; do
    if "$candidate" -c 'import sys, venv, ensurepip
sys.exit(not (3, 10) <= sys.version_info < (3, 15))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  return 1
}

# Prints an nvcc of CUDA 12.8 or later: $CUDACXX, that on PATH, the toolkit's usual place, or the one
# that scripts/setup put into .venv.
find_nvcc() {
  local candidate version
  for candidate in "${CUDACXX:-}" "$(command -v nvcc || true)" \
    "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" \
    "$root"/.venv/lib/python3*/site-packages/nvidia/cu*/bin/nvcc; do
    [[ -x $candidate ]] || continue
    version=$("$candidate" --version 2>/dev/null | sed -n 's/.*, release \([0-9.]*\),.*/\1/p')
    if [[ -n $version && $(printf '%s\n' 12.8 "$version" | sort -V | head -n 1) == 12.8 ]]; then
      echo "$candidate"
      return
    fi
  done
  return 1
}

# Compile jobs: a source that includes torch takes up to 2 GB, so memory limits them too.
job_count() {
  local cores kib limit
  cores=$(nproc)
  kib=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo)
  for file in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do
    if [[ -r $file ]]; then
      limit=$(<"$file")
      if [[ $limit =~ ^[0-9]{1,15}$ ]] && ((limit / 1024 < kib)); then kib=$((limit / 1024)); fi
    fi
  done
  local jobs=$((kib / (2 * 1024 * 1024)))
  if ((jobs > cores)); then jobs=$cores; fi
  if ((jobs < 1)); then jobs=1; fi
  echo "$jobs"
}

# The site-packages folder that holds torch for Python, or nothing (LibTorch without Python).
torch_site_packages() {
  local folder
  if [[ -n ${SFUMATO_TORCH_DIR:-} ]]; then
    folder=$(dirname -- "$SFUMATO_TORCH_DIR")
    if [[ -f $folder/torch/__init__.py ]]; then (cd -- "$folder" && pwd -P); fi
  else
    for folder in "$root"/.venv/lib/python3*/site-packages; do
      if [[ -f $folder/torch/__init__.py ]]; then echo "$folder"; fi
    done
  fi
}
