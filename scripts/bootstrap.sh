#!/usr/bin/env bash
# Installs what is missing: Debian packages, uv, Python environments. Does nothing when all is there.
#
#   scripts/bootstrap.sh [packages] [nodes] [servers] [testing] [benchmarks] [uv] [venv NAME LOCK]
#
#   (no argument)    servers, and .stack/venv from requirements-dev.lock with this project installed editable: a link
#                    to a folder of that lock's own
#   packages         the servers only
#   nodes            what `make up NODES=…` and LISTEN=… need besides: socat, and iproute2 for network namespaces
#   servers          the servers of the next Debian, below .stack/servers/RELEASE: what `make compat` runs on
#   testing          what only `make test` needs: chromium looks at the pages, node runs an example, docker-compose parses the Compose file, nginx as below
#   benchmarks       what only `make bench` needs: nginx serves pages that cost nothing
#   uv               uv only
#   venv NAME LOCK   .stack/NAME from LOCK (venv-demo requirements-demo.lock); alone, without the project
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.9
UV=.stack/uv/bin/uv
# Debian 13: PostgreSQL 17, Redis 8, RabbitMQ 4.0.
SERVERS_RELEASE=trixie
SERVERS_PACKAGES=postgresql-17,redis-server,rabbitmq-server
LOCK="${LOCK:-requirements-dev.lock}"

say() { printf 'bootstrap: %s\n' "$*"; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

# A Python 3.11 of the system; not one of an environment that happens to be active.
system_python() {
    local candidate
    for candidate in /usr/bin/python3.11 /usr/local/bin/python3.11 python3.11 python3; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 is needed (Debian package python3.11)"
}

# Debian starts a server when its package is configured. policy-rc.d answers 101, `not allowed`, while we install,
# so that no server on a default port is left running; what stood there before is put back.
POLICY=/usr/sbin/policy-rc.d
restore_policy() {
    rm -f "$POLICY"
    if [ -e "$POLICY.collect-ops" ]; then mv "$POLICY.collect-ops" "$POLICY"; fi
}

install_packages() {
    local missing=("$@")
    [ "$(id -u)" = 0 ] || die "missing Debian packages: ${missing[*]}; run: sudo apt-get install ${missing[*]}"
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them with this system's package manager"
    say "installing ${missing[*]}"
    if [ -e "$POLICY" ]; then mv "$POLICY" "$POLICY.collect-ops"; fi
    trap restore_policy EXIT
    printf '#!/bin/sh\nexit 101\n' >"$POLICY"
    chmod 755 "$POLICY"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    restore_policy
    trap - EXIT
}

ensure_packages() {
    local missing=()
    compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql-15)
    command -v psql >/dev/null || missing+=(postgresql-client-15)
    command -v redis-server >/dev/null || missing+=(redis-server)
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
    # Debian's python3 comes without ensurepip, which making an environment needs.
    "$(system_python)" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

ensure_nodes() {
    local missing=()
    command -v socat >/dev/null || missing+=(socat)
    command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing+=(iproute2)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

ensure_testing() {
    local missing=()
    command -v chromium >/dev/null || missing+=(chromium)
    command -v node >/dev/null || missing+=(nodejs)
    command -v docker-compose >/dev/null || missing+=(docker-compose)
    has_nginx || missing+=(nginx)
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

ensure_benchmarks() { has_nginx || install_packages nginx; }

# Debian's stands where a user's path does not lead.
has_nginx() { command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]; }

# The next Debian's servers in a file tree of their own, some 630 MB: debootstrap brings what they link to as well. It
# mounts things in the tree while it works, so it has a mount namespace of its own, which goes whatever happens. The tree
# gets its name when it is complete: what an interrupted run leaves is made anew.
ensure_servers() {
    local tree=".stack/servers/$SERVERS_RELEASE" stamp="$SERVERS_RELEASE $SERVERS_PACKAGES" mirror
    if [ "$(cat "$tree/.installed-from" 2>/dev/null)" = "$stamp" ]; then return; fi
    [ "$(id -u)" = 0 ] || die "a tree of servers needs root: debootstrap makes device files, and the servers enter it by a mount"
    command -v debootstrap >/dev/null || install_packages debootstrap
    # The package archive that this system itself uses.
    mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)"
    [ -n "$mirror" ] || die "apt names no package archive (apt-get indextargets)"
    say "installing PostgreSQL, Redis and RabbitMQ of Debian $SERVERS_RELEASE below $tree"
    rm -rf --one-file-system "$tree.new" "$tree"
    mkdir -p "$tree.new"
    if ! unshare --mount --propagation private debootstrap --variant=minbase --include="$SERVERS_PACKAGES" \
        "$SERVERS_RELEASE" "$tree.new" "$mirror" >.stack/servers/debootstrap.log 2>&1; then
        tail -n 20 .stack/servers/debootstrap.log >&2
        die "debootstrap failed; all it said is in .stack/servers/debootstrap.log"
    fi
    rm -rf "$tree.new/var/cache/apt/archives" "$tree.new/var/lib/apt/lists"
    printf '%s\n' "$stamp" >"$tree.new/.installed-from"
    mv "$tree.new" "$tree"
}

ensure_uv() {
    if [ -x "$UV" ] && [ "$("$UV" --version 2>/dev/null | cut -d' ' -f2)" = "$UV_VERSION" ]; then return; fi
    say "installing uv $UV_VERSION"
    rm -rf .stack/uv
    "$(system_python)" -m venv .stack/uv
    .stack/uv/bin/pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
}

# fill_venv FOLDER LOCK [EDITABLE]: the environment holds exactly what the lock says. The stamp is written last, so an
# interrupted run is done again.
fill_venv() {
    local venv="$1" lock="$2" editable="${3:-}"
    ensure_uv
    say "filling $venv from $lock"
    rm -f "$venv/.installed-from"
    # An environment whose Python is gone (moved checkout, upgraded system) is made anew.
    if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        "$UV" venv --quiet --clear --python "$(system_python)" "$venv"
    fi
    "$UV" pip sync --quiet --python "$venv/bin/python" "$lock"
    if [ -n "$editable" ]; then
        "$UV" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
    fi
    printf '%s\n' "$(stamp_of "$lock" "$editable")" >"$venv/.installed-from"
}

stamp_of() { printf '%s %s\n' "$(cat "$1" ${2:+pyproject.toml} | sha256sum | cut -d' ' -f1)" "$(pwd)"; }

# is_filled FOLDER STAMP
is_filled() { [ -x "$1/bin/python" ] && [ "$(cat "$1/.installed-from" 2>/dev/null)" = "$2" ]; }

ensure_venv() {
    local venv=".stack/$1" lock="$2"
    [ -f "$lock" ] || die "$lock is missing; make lock writes it"
    is_filled "$venv" "$(stamp_of "$lock" "")" || fill_venv "$venv" "$lock"
}

# ensure_stack_venv NAME LOCK: the stack's environment. Its processes run for weeks and import when they need it, so what
# they started with is never changed under them: each lock has a folder of its own in .stack/venvs, .stack/NAME is a link
# to the present one, and the stack starts programs with the folder's own path (stack/__main__.py).
ensure_stack_venv() {
    local name="$1" lock="$2" link=".stack/$1" stamp venv
    [ -f "$lock" ] || die "$lock is missing; make lock writes it"
    stamp="$(stamp_of "$lock" editable)"
    if is_filled "$link" "$stamp"; then return; fi
    venv=".stack/venvs/$name-$(printf '%s' "$stamp" | sha256sum | cut -c1-12)"
    mkdir -p .stack/venvs
    is_filled "$venv" "$stamp" || fill_venv "$venv" "$lock" editable
    # Releases before had a folder where the link is. What runs from it finds the new packages at its path until
    # `make up`, which goes on from here, has restarted it.
    if [ -d "$link" ] && [ ! -L "$link" ]; then mv "$link" ".stack/venvs/$name-before-$(date +%s)"; fi
    ln -s "venvs/$(basename "$venv")" "$link.new"
    mv -T "$link.new" "$link"
    remove_old_venvs "$name" "$venv"
}

# remove_old_venvs NAME PRESENT: but for the present one, the last one (for a way back), and what a process uses.
remove_old_venvs() {
    local old kept=0
    while read -r old; do
        if [ "$old" = "$2" ]; then continue; fi
        if [ "$kept" = 0 ]; then kept=1; continue; fi
        if grep -qsF "$(pwd)/$old/" /proc/[0-9]*/maps /proc/[0-9]*/cmdline /proc/[0-9]*/environ; then continue; fi
        say "removing $old"
        rm -rf "$old"
    done < <(ls -dt ".stack/venvs/$1-"*)
}

mkdir -p .stack
# Two make commands at a time must not fill one environment together.
exec 9>.stack/bootstrap.lock
flock 9

if [ $# = 0 ]; then
    ensure_packages
    ensure_stack_venv venv "$LOCK"
fi
while [ $# -gt 0 ]; do
    case "$1" in
        packages) ensure_packages; shift ;;
        nodes) ensure_nodes; shift ;;
        servers) ensure_servers; shift ;;
        testing) ensure_testing; shift ;;
        benchmarks) ensure_benchmarks; shift ;;
        uv) ensure_packages; ensure_uv; shift ;;
        venv)
            [ $# -ge 3 ] || die "usage: scripts/bootstrap.sh venv NAME LOCK"
            ensure_packages
            ensure_venv "$2" "$3"
            shift 3
            ;;
        *) die "unknown argument '$1'; allowed: packages, nodes, servers, testing, benchmarks, uv, venv NAME LOCK" ;;
    esac
done
