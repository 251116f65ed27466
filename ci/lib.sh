# shellcheck shell=bash
# Sourced by every script in this folder: words, tools, the cache folder, and an orderly end.

set -euo pipefail
shopt -s inherit_errexit # a failure within $(…) is one too

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
CACHE="$(realpath --canonicalize-missing "${SNAP_CI_CACHE:-/var/cache/snap-ci}")"
SYSTEM_PYTHON=/usr/bin/python3 # Debian's own: a python3 earlier on PATH may be of another version than the image's

READY_TRIES=200 # polls of READY_POLL_S: how long a service may take to answer
READY_POLL_S=0.05
STOP_TRIES=200
INSTALL_TRIES=3
APT_LOCK_TIMEOUT_S=300

# stdout is for results, stderr for talk.
say() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT]
die() {
    say "error: $1"
    if [ $# -gt 1 ]; then say "hint: $2"; fi
    exit 1
}

# show_help "$@": prints the comment at the head of the calling script where an argument asks for help.
show_help() {
    local argument
    for argument in "$@"; do
        case "$argument" in
            --) return ;;
            -h | --help) sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"; exit 0 ;;
        esac
    done
}

need_root() {
    [ "$(id -u)" = 0 ] || die "$(basename "$0") mounts file systems and unpacks foreign owners, so it needs root" "sudo $0"
}

# --- an orderly end -------------------------------------------------------------------------------------------------

AT_EXIT=()

# at_exit COMMAND [ARGUMENT…]: runs it when the script ends, however it ends; the last registered runs first.
at_exit() { AT_EXIT+=("$(printf '%q ' "$@")"); }

run_at_exit() {
    local status=$? i
    trap - EXIT
    for ((i = ${#AT_EXIT[@]} - 1; i >= 0; i--)); do
        eval "${AT_EXIT[i]}" || say "warning: cleaning up failed: ${AT_EXIT[i]}"
    done
    exit "$status"
}
trap run_at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# fresh_dir: prints a new empty folder on the cache's file system. The caller removes it, with remove_dir.
fresh_dir() {
    mkdir -p "$CACHE/tmp"
    mktemp -d "$CACHE/tmp/$(basename "$0").XXXXXX"
}

# remove_dir DIR: with whatever is still mounted in it, and never what is mounted.
remove_dir() {
    local mounted
    while read -r mounted; do
        umount "$mounted" || umount --lazy "$mounted"
    done < <(findmnt --raw --noheadings --output TARGET | awk -v below="$1/" 'index($0, below) == 1' | sort --reverse)
    rm -rf --one-file-system "$1"
}

# --- services -------------------------------------------------------------------------------------------------------

# service_pid DIR NAME: prints the pid that DIR/pid names while that process is alive and is NAME (a pid may be in use again).
service_pid() {
    local pid
    [ -s "$1/pid" ] || return 1
    pid="$(cat "$1/pid")"
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 1
    echo "$pid"
}

# start_service DIR COMMAND…: runs COMMAND detached, with DIR/pid and DIR/log.
start_service() {
    local dir="$1"
    shift
    mkdir -p "$dir"
    # 9 is the lock of a caller: a service must not keep it.
    setsid "$@" >"$dir/log" 2>&1 </dev/null 9>&- &
    echo $! >"$dir/pid"
    disown
}

# wait_ready DIR NAME COMMAND…: until COMMAND succeeds; fails early where the process ends. NAME is what the kernel calls it.
wait_ready() {
    local dir="$1" name="$2" try
    shift 2
    for ((try = 0; try < READY_TRIES; try++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        # Not by its name: the first polls may come before exec has given it that.
        kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
        sleep "$READY_POLL_S"
    done
    tail -n 20 "$dir/log" >&2
    stop_service "$dir" "$name"
    die "$name did not become ready" "its log is $dir/log"
}

stop_service() {
    local pid try
    if pid="$(service_pid "$1" "$2")"; then
        kill "$pid"
        for ((try = 0; try < STOP_TRIES; try++)); do
            kill -0 "$pid" 2>/dev/null || break
            sleep "$READY_POLL_S"
        done
        kill -9 "$pid" 2>/dev/null || true
    fi
    rm -f "$1/pid"
}

# use_registry: sets `registry` to the address of ci/registry's registry; one that had to be started ends with the script.
# shellcheck disable=SC2034 # it is the callers'
use_registry() {
    if ! registry="$("$REPO/ci/registry" status 2>/dev/null)"; then
        at_exit "$REPO/ci/registry" stop
        registry="$("$REPO/ci/registry" start)"
    fi
}

# --- tools ----------------------------------------------------------------------------------------------------------

# Which of Debian's packages brings a command.
declare -A PACKAGE_OF=(
    [buildah]=buildah [cc]=build-essential [containerd]=containerd [ctr]=containerd [ctr-remote]=stargz-snapshotter
    [curl]=curl [debootstrap]=debootstrap [docker-registry]=docker-registry [fusermount3]=fuse3 [getfattr]=attr
    [htpasswd]=apache2-utils [ip]=iproute2 [jq]=jq [pip3]=python3-pip [runc]=runc [setcap]=libcap2-bin [shellcheck]=shellcheck
    [skopeo]=skopeo [tc]=iproute2 [umoci]=umoci [zstd]=zstd
)

# install_tools COMMAND…: installs Debian's packages for those commands that are missing.
install_tools() {
    local command missing=()
    for command in "$@"; do
        if [ "$command" = python3 ]; then
            [ -x "$SYSTEM_PYTHON" ] || missing+=(python3)
        elif ! command -v "$command" >/dev/null; then
            missing+=("${PACKAGE_OF[$command]}")
        fi
    done
    if [ ${#missing[@]} -gt 0 ]; then install_packages "${missing[@]}"; fi
}

# install_packages PACKAGE…: with retries, and without starting or enabling the services that come with them.
install_packages() {
    local packages policy=/usr/sbin/policy-rc.d try
    command -v apt-get >/dev/null || die "this machine has no apt-get; missing: $*" "these scripts are written for Debian 12"
    need_root
    mapfile -t packages < <(printf '%s\n' "$@" | sort -u)
    say "installing ${packages[*]}"
    # docker-registry's own service listens on every address. policy-rc.d is Debian's way to keep services from starting.
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        at_exit rm -f "$policy"
    else
        policy=
    fi
    for ((try = 1; try <= INSTALL_TRIES; try++)); do
        # The lists of a fresh machine are empty or old.
        if { [ "$try" = 1 ] && have_package_lists "${packages[@]}"; } || apt_get update; then
            # --no-remove: rather stop than take away another container runtime that the machine is using.
            if apt_get install --no-install-recommends --no-remove "${packages[@]}"; then break; fi
        fi
    done
    if [ -n "$policy" ]; then rm -f "$policy"; fi
    [ "$try" -le "$INSTALL_TRIES" ] || die "could not install ${packages[*]}" "see what apt-get says above"
    if [[ " ${packages[*]} " = *" docker-registry "* ]] && command -v systemctl >/dev/null; then
        systemctl --quiet disable docker-registry.service >&2 || true # there may be no systemd running
    fi
}

have_package_lists() { apt-cache show --quiet=2 "$@" >/dev/null 2>&1; }

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes -o "DPkg::Lock::Timeout=$APT_LOCK_TIMEOUT_S" -o Dpkg::Use-Pty=0 "$@" >&2
}

# debian_mirror: prints "URL SUITE" of the main archive that apt on this machine uses.
debian_mirror() {
    local suite url
    suite="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")"
    # shellcheck disable=SC2016 # these are apt's variables
    url="$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v suite="$suite" '$2 == suite && $3 == "main" { print $1; exit }')"
    # Cloud images name a file with a list of mirrors.
    if [[ "$url" = mirror+file:* ]]; then url="$(awk '{ print $1; exit }' "${url#mirror+file:}")"; fi
    [ -n "$url" ] || die "apt has no main archive for '$suite'" "apt-get update"
    echo "$url $suite"
}

# need_rust: is there a cargo as new as the workspace asks for? It is not in Debian 12; the linker it needs is.
need_rust() {
    local wanted have
    install_tools cc
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$REPO/Cargo.toml")"
    command -v cargo >/dev/null || die "cargo is not installed; Rust $wanted or newer is needed" "install Rust with rustup"
    have="$(cargo --version | awk '{ print $2 }')"
    printf '%s\n%s\n' "$wanted" "$have" | sort --version-sort --check=quiet ||
        die "cargo is $have; Rust $wanted or newer is needed" "rustup update"
}

# build_snap: sets `snap` to the program, built for release. Where $SNAP names one already, that is taken.
# shellcheck disable=SC2034
build_snap() {
    snap="${SNAP:-}"
    if [ -z "$snap" ]; then
        need_rust
        say "building snap"
        (cd "$REPO" && cargo build --quiet --release --locked --package snap)
        snap="${CARGO_TARGET_DIR:-$REPO/target}/release/snap"
    fi
    [ -x "$snap" ] || die "there is no program $snap"
}

# --- time and size --------------------------------------------------------------------------------------------------

now_us() { echo "${EPOCHREALTIME/[.,]/}"; }

# seconds MICROSECONDS: with milliseconds, whatever the locale.
seconds() { printf '%d.%03d' "$(($1 / 1000000))" "$(($1 / 1000 % 1000))"; }

# megabytes BYTES
megabytes() { printf '%d.%d' "$(($1 / 1000000))" "$(($1 / 100000 % 10))"; }

# settle DIR: what was written and deleted before must not be paid for by what is measured next.
settle() { sync --file-system "$1"; }

# --- images ---------------------------------------------------------------------------------------------------------

# warm LAYOUT TAG REFERENCE: reads the image once from the registry, so that none of those measured finds its files on a cold disk.
warm() {
    local digest address="${3%%/*}" repository="${3#*/}"
    while read -r digest; do
        curl --silent --fail --output /dev/null "http://$address/v2/${repository%:*}/blobs/$digest"
    done < <(image_manifest "$1" "$2" | jq --raw-output '.config.digest, .layers[].digest')
}

# manifest_digest LAYOUT TAG
manifest_digest() {
    jq --raw-output --arg tag "$2" '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == $tag).digest' "$1/index.json"
}

# image_manifest LAYOUT TAG: prints the manifest.
image_manifest() {
    local digest
    digest="$(manifest_digest "$1" "$2")"
    cat "$1/blobs/sha256/${digest#sha256:}"
}

# image_bytes LAYOUT TAG: what a full pull transfers, manifest aside.
image_bytes() { image_manifest "$1" "$2" | jq '[.config.size, .layers[].size] | add'; }
