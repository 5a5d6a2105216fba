#!/usr/bin/env bash
# Makes a bare Debian, runs deployments/image/install.sh in it as the Dockerfile does, and asks what
# came of it as the user of the image, with a read-only root.
#
#   bare_root.sh CHECKOUT ROOT
set -euo pipefail
checkout=$1 root=$2

mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3,python3-venv bookworm "$root"
mkdir -p "$root/opt/serving/requirements"
cp "$checkout"/requirements/{cpu,cuda}.txt "$root/opt/serving/requirements/"
for name in pyproject.toml README.md serving deployments loadtests local_models; do
    cp -r "$checkout/$name" "$root/opt/serving/"
done
# How this machine reaches the package indexes, local folders included.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for file in /etc/pip.conf /etc/xdg/pip; do
    if [[ -e $file ]]; then mkdir -p "$root$(dirname "$file")" && cp -r "$file" "$root$file"; fi
done
folders=$(python3 -m pip config list 2>/dev/null | grep -o '/opt/[^ '"'"']*' | sort -u || true)

export checkout root folders
unshare --mount --fork bash -euo pipefail -c '
for folder in $folders; do
    if [[ -d $folder ]]; then
        mkdir -p "$root$folder" && mount --bind -o ro "$folder" "$root$folder"
    fi
done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
inside() { chroot "$@"; }
inside "$root" bash /opt/serving/deployments/image/install.sh python cpu
inside "$root" bash /opt/serving/deployments/image/install.sh system cpu

mount --bind "$root" "$root" && mount -o remount,ro,bind "$root"
for folder in proc dev; do
    [[ $folder == proc ]] && mount -t proc proc "$root/proc" || mount --rbind /dev "$root/dev"
done
for folder in tmp home/serving var/log/serving var/tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
as_user() {
    chroot --userspec=10001:10001 "$root" env -i HOME=/tmp PYTHONDONTWRITEBYTECODE=1 \
        PATH=/opt/serving/.venv/bin:/usr/bin:/bin "$@"
}
as_user bash -c "! touch /opt/serving/x 2>/dev/null"
as_user wget --version >/dev/null
as_user curl --version >/dev/null
as_user hf --help >/dev/null
as_user ray --version
as_user serving plan /opt/serving/deployments/models/local.yaml
as_user python -c "import vllm, torch; print(vllm.__version__, torch.__version__)"
as_user python -c "
from deployments.app import build_router
from deployments.code import engine_code, router_code
print(engine_code(), router_code())"
'
