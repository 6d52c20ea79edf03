#!/usr/bin/env bash
# Makes sure of the tools named as arguments: make, cc, cargo, lint, redis, python3, venv,
# node, chromium, containers, sidekiq.
#
# What is missing comes from the system's packages (apt-get, through sudo when not root). Where that
# cannot be done, the command that mends it is named, and nothing is changed.
set -euo pipefail

fail() {
    printf 'install-tools: %s\n' "$@" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs a package, or fails with the command that would.
apt_install() {
    local package=$1 output
    has apt-get || fail "$package is missing: install it with this system's package manager"
    [ "$(id -u)" -eq 0 ] || has sudo ||
        fail "$package is missing: as root, run: apt-get install $package"
    echo "install-tools: installing $package" >&2
    # Another repository of this machine may be broken; the install says whether that matters.
    as_root apt-get -qq update || true
    [ "$package" != redis-server ] || check_redis_candidate
    output=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends "$package" 2>&1) ||
        fail "$output" "$package could not be installed; run: sudo apt-get install $package"
}

redis_advice='install Redis 7.0 or newer (https://redis.io/docs/latest/operate/oss_and_stack/install/),
or name its server program in LEASEHOLD_REDIS_SERVER'

check_redis_candidate() {
    local version
    version=$(apt-cache policy redis-server | sed -n 's/^ *Candidate: \(.*:\)\?\([0-9]*\)\..*/\2/p')
    [ "${version:-0}" -ge 7 ] ||
        fail "this system's packages have no Redis 7.0 or newer: $redis_advice"
}

policy=/usr/sbin/policy-rc.d

# Debian's package starts a Redis on port 6379 when installed, and with the system from then on.
# Nobody asked for that: a policy-rc.d keeps it from starting while we install, and it is disabled.
install_redis() {
    local ours=
    if [ ! -e "$policy" ] && has apt-get && { [ "$(id -u)" -eq 0 ] || has sudo; }; then
        ours=$(mktemp)
        printf '#!/bin/sh\n# Of install-tools.sh, for the time of one installation.\nexit 101\n' >"$ours"
        as_root install -m 755 "$ours" "$policy"
        rm -f "$ours"
        trap 'as_root rm -f "$policy"' EXIT
    fi
    apt_install redis-server
    if [ -n "$ours" ]; then
        as_root rm -f "$policy"
        trap - EXIT
    fi
    if has systemctl; then
        as_root systemctl disable redis-server.service >/dev/null 2>&1 || true
    fi
    echo "install-tools: installed the program only; the system's own Redis service is off" \
        "(sudo systemctl enable --now redis-server turns it on)" >&2
}

need_redis() {
    local server=${LEASEHOLD_REDIS_SERVER:-redis-server} version
    if ! has "$server"; then
        [ -z "${LEASEHOLD_REDIS_SERVER:-}" ] || fail "LEASEHOLD_REDIS_SERVER=$server is no program"
        install_redis
    fi
    version=$("$server" --version | sed -n 's/.* v=\([0-9]*\)\..*/\1/p')
    [ "${version:-0}" -ge 7 ] ||
        fail "$(command -v "$server") is too old ($("$server" --version)): $redis_advice"
}

need_cargo() {
    PATH=$PATH:${HOME:-/root}/.cargo/bin
    has cargo || fail "cargo is missing: install the Rust toolchain with:" \
        "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
}

need_lint() {
    need_cargo
    local part
    for part in fmt clippy; do
        cargo "$part" --version >/dev/null 2>&1 ||
            fail "cargo $part is missing: run: rustup component add rustfmt clippy"
    done
}

need_venv() {
    has python3 || apt_install python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
}

# Node.js and npm, for the clients and linters that the tests run.
need_node() {
    local version
    has node || apt_install nodejs
    has npm || apt_install npm
    version=$(node --version | sed 's/^v\([0-9]*\)\..*/\1/')
    [ "${version:-0}" -ge 18 ] ||
        fail "$(command -v node) is too old ($(node --version)): install Node.js 18.18 or newer (https://nodejs.org)"
}

# What scripts/deploy-test.py runs containers with. Without a recent kubectl,
# which Debian 12 does not have, it leaves the manifests out and says so.
need_containers() {
    local pair
    [ "$(id -u)" -eq 0 ] || fail "the deployment test needs root: it runs containers with networks of their own"
    for pair in podman:podman buildah:buildah runc:runc debootstrap:debootstrap strip:binutils pgrep:procps \
        iptables:iptables ip:iproute2; do
        has "${pair%%:*}" || apt_install "${pair#*:}"
    done
    [ -e /usr/libexec/podman/catatonit ] || has catatonit || apt_install catatonit
    [ -e /usr/lib/podman/netavark ] || apt_install netavark
    [ -e /usr/lib/podman/aardvark-dns ] || apt_install aardvark-dns
}

# Debian's Sidekiq, for its own Ruby.
need_sidekiq() {
    local ruby=/usr/bin/ruby
    [ -x "$ruby" ] || ruby=ruby
    has "$ruby" && "$ruby" -e 'require "sidekiq"' 2>/dev/null || apt_install ruby-sidekiq
}

need_chromium() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        ! has "$name" || return 0
    done
    apt_install chromium
}

for tool in "$@"; do
    case $tool in
    make | python3) has "$tool" || apt_install "$tool" ;;
    cc) has cc || apt_install build-essential ;;
    cargo | chromium | containers | lint | node | redis | sidekiq | venv) "need_$tool" ;;
    *) fail "no such tool: $tool" ;;
    esac
done
