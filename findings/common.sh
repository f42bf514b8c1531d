# Sourced by the findings: a virtual environment in a temporary folder, removed at the end.
set -euo pipefail

folder=$(mktemp -d "${TMPDIR:-/tmp}/finding.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder"

# install REQUIREMENT...: from PyPI; PIP_EXTRA_INDEX_URL and the like work as usual.
install() {
  python3 -m venv environment
  environment/bin/python -m pip install --quiet --disable-pip-version-check "$@"
}
