#!/usr/bin/env bash
# What the image is made of; the Dockerfile runs nothing else.
#
#   install.sh system DEVICE   packages of Debian, and the user that everything runs as
#   install.sh python DEVICE   the environment in .venv below the sources, from the locks
#
# DEVICE is cuda or cpu. PIP_INDEX_URL and TORCH_INDEX name other indexes than the public ones.
set -euo pipefail

USER_ID=10001
HOME_FOLDER=/opt/serving
TORCH_INDEX=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}

system() {
    # bash and wget: KubeRay's commands and probe. curl: the chart's test. libgomp: torch.
    local packages=(bash ca-certificates curl libgomp1 wget)
    # Triton compiles a stub for each kernel when it is first used.
    if [[ $1 == cuda ]]; then packages+=(gcc libc6-dev); fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update
    apt-get install --yes --no-install-recommends "${packages[@]}"
    rm -rf /var/lib/apt/lists/*
    groupadd --gid "$USER_ID" serving
    useradd --uid "$USER_ID" --gid "$USER_ID" --create-home --home-dir /home/serving \
        --shell /usr/sbin/nologin serving
    # The chart mounts volumes there; without it they are folders of this user.
    install --directory --owner "$USER_ID" --group "$USER_ID" \
        /var/log/serving /var/lib/serving /var/cache/huggingface
}

python() {
    cd "$HOME_FOLDER"
    local lock=requirements/$1.txt
    python3 -m venv .venv
    local pip=(.venv/bin/python -m pip install --disable-pip-version-check --no-cache-dir --no-deps)
    local torch
    torch=$(grep '^torch==.*+cpu' "$lock" || true)
    if [[ -n $torch ]]; then
        "${pip[@]}" "$torch" || "${pip[@]}" --extra-index-url "$TORCH_INDEX" "$torch"
    fi
    "${pip[@]}" -r "$lock"
    # Editable: the tiny models and the digest of the code are where they are in a checkout.
    "${pip[@]}" --editable .
    # Nothing is written at run time: the root is read-only.
    .venv/bin/python -m compileall -q .venv serving deployments loadtests local_models || true
    .venv/bin/python -m pip check || true
    .venv/bin/serving --help >/dev/null
    .venv/bin/python -m loadtests validate smoke
    .venv/bin/ray --version
}

case "${1:-} ${2:-}" in
"system cuda" | "system cpu" | "python cuda" | "python cpu") "$1" "$2" ;;
*)
    sed -n '2,8p' "$0" >&2
    exit 2
    ;;
esac
