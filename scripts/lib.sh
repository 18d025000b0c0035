# shellcheck shell=bash
# What the scripts of this folder share: where things are, how they speak, which Rust, which apt mirrors.
# Sourced, never run; it changes nothing by being sourced, except PATH.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
WORK=$ROOT/work
export ROOT WORK

# A root shell that came from plain `su` or from cron has no sbin; debootstrap and losetup live there.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() {
    printf '[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"
}

warn() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    warn "$*"
    exit 1
}

# The calling script's opening comment.
usage() {
    sed -n '2,/^[^#]\|^$/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

need_root() {
    [[ $(id -u) -eq 0 ]] || die "must run as root (it installs packages and builds an image with loop devices)"
}

# The oldest Rust that builds us, as Cargo.toml says it.
wanted_rust() {
    sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml" | head -n 1
}

have_rust() {
    local have
    have=$(cargo --version 2>/dev/null | awk '{print $2}') || return 1
    [[ -n $have ]] && printf '%s\n%s\n' "$(wanted_rust)" "$have" | sort -C -V
}

# Finds cargo where rustup puts it, for shells that have not read its profile. On a machine where nobody has used
# cargo, its downloads stay in the work folder; elsewhere the user's own cargo home has the settings and the cache.
use_rust() {
    local home=${HOME:-/root}
    if ! have_rust && [[ -x ${CARGO_HOME:-$home/.cargo}/bin/cargo ]]; then
        PATH=${CARGO_HOME:-$home/.cargo}/bin:$PATH
    fi
    have_rust || die "needs cargo $(wanted_rust) or later, found: $(cargo --version 2>/dev/null || echo none)"
    if [[ -z ${CARGO_HOME:-} && ! -d $home/.cargo ]]; then
        export CARGO_HOME=$WORK/cache/cargo
    fi
}

# Checks dependencies against deny.toml. A version of our choice: its rules and its file format change.
export CARGO_DENY=0.20.2
cargo_deny() {
    "$WORK/cache/cargo-deny/bin/cargo-deny" "$@"
}

# Runs libFuzzer over tests/fuzz, see scripts/fuzz.
export CARGO_FUZZ=0.13.2
cargo_fuzz() {
    "$WORK/cache/cargo-fuzz/bin/cargo-fuzz" "$@"
}

# The base address of the mirror from which this machine's apt takes SUITE, or nothing. Apt itself reads its sources
# (*.list and *.sources alike) and says what it would fetch; it opens no connection for that.
apt_mirror() {
    local suite=$1 base file
    base=$(apt-get update --print-uris 2>/dev/null |
        sed -n "s|^'\(.*[^/]\)/*/dists/$suite/[^']*InRelease' .*|\1|p" | head -n 1)
    # Cloud images name a file that lists mirrors.
    if [[ $base == mirror+file:* ]]; then
        file=${base#mirror+file:}
        base=$(awk '!/^[[:space:]]*(#|$)/ {print $1; exit}' "/${file##/}" 2>/dev/null | sed 's|/*$||')
    fi
    # What both debootstrap and an apt inside the image can fetch from.
    case $base in
        http://* | https://*) printf '%s\n' "$base" ;;
    esac
}

# The proxy that apt uses for http, or nothing.
apt_proxy() {
    local APT_PROXY=''
    eval "$(apt-config shell APT_PROXY Acquire::http::Proxy)"
    [[ $APT_PROXY == DIRECT ]] || printf '%s\n' "$APT_PROXY"
}

# A loopback TCP port that nobody listens on right now.
free_port() {
    /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Runs a command with its output in a file, which is shown if it fails.
logged() {
    local log=$1
    shift
    if ! "$@" </dev/null >"$log" 2>&1; then
        tail -n 25 "$log" >&2
        die "$1 failed; all of its output: $log"
    fi
}

# A venv with these packages, made once. Its logs go to LOGS.
venv() {
    local dir=$1
    shift
    if [[ $(cat "$dir/installed.txt" 2>/dev/null) != "$*" ]]; then
        say "installing $* into $dir"
        rm -rf "$dir"
        logged "$LOGS/venv.log" /usr/bin/python3 -m venv "$dir"
        PIP_CACHE_DIR=$WORK/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 \
            logged "$LOGS/pip.log" "$dir/bin/pip" install "$@"
        echo "$*" >"$dir/installed.txt"
    fi
}

# A venv of exactly the packages of a list, made once for each state of the list; several runs wait for each other, also
# for what the script does afterwards. Pip takes its index from the machine's settings.
#
#   pinned_venv DIR LIST WHAT
pinned_venv() {
    local dir=$1 list=$2 what=$3 stamp log=$1.log
    # Written last: without it, or with another one, the venv is not complete.
    stamp=$dir/$(basename "$list")
    mkdir -p "$(dirname "$dir")"
    exec 9>"$dir.lock"
    flock --timeout 900 9 || die "another run has been installing into $dir for a quarter of an hour"
    if ! cmp --silent "$list" "$stamp"; then
        say "installing $what into $dir: $(grep -c == "$list") packages" >&2
        rm -rf "$dir"
        if ! timeout 600 /usr/bin/python3 -m venv "$dir" </dev/null >"$log" 2>&1 9>&-; then
            tail -n 25 "$log" >&2
            die "python3 cannot make a venv; is Debian's package python3-venv installed? All of its output: $log"
        fi
        if ! PIP_CACHE_DIR=$WORK/cache/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 timeout 600 "$dir/bin/pip" \
            install --retries 2 --no-deps --no-compile --requirement "$list" </dev/null >"$log" 2>&1 9>&-; then
            tail -n 25 "$log" >&2
            die "pip cannot install $what: the package index of this machine's pip is out of reach, or lacks a package." \
                "All of pip's output: $log"
        fi
        cp "$list" "$stamp"
    fi
}

# Has the builder that NODEPOOL_RELEASED_BUILDER names dump its stacks during a build, and sees that they are as they must
# be. Wants a ZooKeeper, as all tests.
released_dump() {
    local name=a_release_shows_certain_stacks_with_lines_and_needs_little_memory_for_it log=$WORK/log/released-dump.log
    mkdir -p "$WORK/log"
    logged "$log" cargo test --locked --test integration -- --ignored --exact --nocapture "builder::stack_dump::$name"
    # With another name no test would run, and none fail.
    grep -E '^[0-9]+ kB before|stack dump ends ' "$log"
}

# ---- packages

# The version of the packages, as Cargo.toml says it.
own_version() {
    sed -n 's/^version *= *"\(.*\)".*/\1/p' "$ROOT/Cargo.toml" | head -n 1
}

# Reads the arguments of a packaging script: sets BINS and OUTPUT, and makes BUILD, which goes with the script.
# shellcheck disable=SC2034 # the scripts read them
package_options() {
    BINS=
    OUTPUT=$WORK/packages
    while [[ $# -gt 0 ]]; do
        case $1 in
            --bins)
                [[ -n ${2:-} ]] || die "--bins wants a folder"
                [[ -d $2 ]] || die "--bins: there is no folder $2"
                BINS=$(cd "$2" && pwd -P)
                shift
                ;;
            -h | --help)
                usage
                exit
                ;;
            -*)
                usage >&2
                exit 2
                ;;
            *)
                [[ -z ${named:-} ]] || die "one folder for the package, not both $OUTPUT and $1"
                local named=1
                OUTPUT=$1
                ;;
        esac
        shift
    done
    mkdir -p "$OUTPUT" "$WORK/log"
    OUTPUT=$(cd "$OUTPUT" && pwd -P)
    BUILD=$(mktemp -d "${TMPDIR:-/tmp}/nodepool-package.XXXXXX")
    trap 'rm -rf "$BUILD"' EXIT
}

# Where the programs to package are. Those of a release are built here, not in the copy: what has been built need not be
# built again, and their line tables name this folder.
programs() {
    if [[ -n $BINS ]]; then
        printf '%s\n' "$BINS"
    else
        logged "$WORK/log/package-cargo.log" "$ROOT/scripts/build-release"
        "$ROOT/scripts/build-release" --where
    fi
}

# A copy of the sources, without what git ignores; of an unpacked archive, all of it. The vendored crates are linked to.
copy_tree() {
    local tree=$1
    mkdir -p "$tree"
    if [[ -e $ROOT/.git ]]; then
        git -C "$ROOT" -c safe.directory="$ROOT" ls-files --cached --others --exclude-standard -z
    else
        (cd "$ROOT" && find . \( -path ./target -o -path ./work -o -path ./vendor \) -prune -o -type f -print0)
    fi | tar --directory="$ROOT" --null --files-from=- --create --file=- | tar --extract --directory="$tree" --file=-
    if [[ -d $ROOT/vendor ]]; then
        ln -s "$ROOT/vendor" "$tree/vendor"
    fi
}

# Moves a finished package to OUTPUT and says so.
deliver() {
    mv "$@" "$OUTPUT"
    printf '%s\n' "${@/#*\//$OUTPUT/}"
}
