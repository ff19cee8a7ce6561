# Sourced by scripts/demo, scripts/test and .ci/run (POSIX sh): makes the Python environment.
#
# pip's own configuration and environment decide where packages come from; nothing here names a
# place. Versions and hashes are those of requirements/*.txt. A second run finds its stamp and
# does nothing.

export PIP_ROOT_USER_ACTION=ignore
export PIP_DISABLE_PIP_VERSION_CHECK=1
export PIP_NO_INPUT=1

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Programs for the tests that start virtual machines, as Debian's packages.
# shellcheck disable=SC2034 # used by those who source this
VM_PACKAGES="qemu-system-x86 qemu-utils debootstrap squashfs-tools busybox-static cpio kmod xz-utils
    e2fsprogs openssl ca-certificates"

# run_logged WHAT COMMAND...: quiet while it works, the whole log when it fails.
run_logged() {
    what=$1
    shift
    log=$(mktemp)
    if "$@" >"$log" 2>&1 </dev/null; then
        rm -f "$log"
    else
        status=$?
        cat "$log" >&2
        rm -f "$log"
        say "error: $what failed (status $status)"
        return "$status"
    fi
}

# apt_install PACKAGE...: installs what is missing, as root or with sudo; else says what to install.
apt_install() {
    missing=
    for package in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
            "install ok installed") ;;
            *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root=sudo
    else
        die "these packages are missing:$missing; as root: apt-get install$missing"
    fi
    command -v apt-get >/dev/null 2>&1 \
        || die "these packages (Debian's names) are missing:$missing; install them, then run this again"
    say "Installing$missing"
    # shellcheck disable=SC2086 # a list of names; sudo or nothing
    run_logged "apt-get update" $as_root apt-get -q update
    # shellcheck disable=SC2086
    run_logged "apt-get install" $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qy --no-install-recommends install $missing
}

# python_version PROGRAM: prints X.Y, or fails if it is no Python that blockrep supports.
python_version() {
    answer=$("$1" -c 'import sys
version = sys.version_info
if not (3, 11) <= version[:2] < (3, 14):
    raise SystemExit(1)
print("%d.%d" % version[:2])' 2>/dev/null) && [ -n "$answer" ] && printf '%s\n' "$answer"
}

# find_python [X.Y]: prints the first Python of that version (any supported one when left out).
find_python() {
    wanted=${1:-}
    if [ -n "$wanted" ]; then
        candidates="python$wanted python3 ${HOME:-/root}/.pyenv/versions/$wanted*/bin/python$wanted"
    else
        candidates="python3 python3.11 python3.12 python3.13"
    fi
    for candidate in $candidates; do
        found=$(python_version "$candidate") || continue
        if [ -z "$wanted" ] || [ "$found" = "$wanted" ]; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# stamp_of LOCK: what an environment was made from.
stamp_of() {
    cat "$1" pyproject.toml src/blockrep/__init__.py scripts/environment.sh | sha256sum | cut -d' ' -f1
}

# usable ENVIRONMENT [X.Y]: is it there, not copied from another folder, of that version (or any)?
usable() {
    found=$(python_version "$1/bin/python") || return 1
    [ "${2:-$found}" = "$found" ] && grep -qF "$PWD/$1" "$1/bin/activate"
}

# make_environment FOLDER LOCK [PYTHON]: a virtual environment that holds the locked packages and
# this tree, editable. LOCK is "run" (what the program needs) or "dev" (and what the checks need).
make_environment() {
    environment=$1
    lock=requirements/$2.txt
    python=${3:-}
    version=
    if [ -n "$python" ]; then
        version=$(python_version "$python") || die "$python is not Python 3.11, 3.12 or 3.13"
    fi

    if ! usable "$environment" "$version"; then
        if [ -z "$python" ]; then
            python=$(find_python) || die "no Python 3.11, 3.12 or 3.13 found; install python3"
            version=$(python_version "$python")
        fi
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            case $(command -v "$python") in
                /usr/bin/*) apt_install "python$version-venv" ;;
                *) die "$python lacks the module venv or ensurepip" ;;
            esac
        fi
        say "Making $environment with Python $version"
        rm -rf "$environment"
        run_logged "making $environment" "$python" -m venv "$environment"
    fi

    stamp=$environment/.blockrep-$2
    [ "$(cat "$stamp" 2>/dev/null)" = "$(stamp_of "$lock")" ] && return 0
    say "Installing the locked packages of $lock into $environment"
    rm -f "$environment"/.blockrep-*
    run_logged "installing $lock" \
        "$environment/bin/python" -m pip install --quiet --require-hashes --requirement "$lock"
    run_logged "installing blockrep" \
        "$environment/bin/python" -m pip install --quiet --no-build-isolation --no-deps --editable .
    # As for every other package. Where Python may not write bytecode (PYTHONDONTWRITEBYTECODE), each
    # of the many processes to come would compile all of it again.
    run_logged "compiling blockrep" "$environment/bin/python" -m compileall -q src
    stamp_of "$lock" >"$stamp"
    # The tests' packages include the program's, in the same versions.
    [ "$2" = run ] || stamp_of requirements/run.txt >"$environment/.blockrep-run"
}
