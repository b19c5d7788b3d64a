# Sourced by the scripts beside it. Sets $root, the folder of the repository, and defines
#
#     environment dev|run|bench    makes the virtual environment of that kind ready, and sets $python to its Python
#
# "run" holds this project and what its main job shows, "dev" all tools and what the tests show too, "bench" what the benchmarks
# measure beside us. "dev" lies in .venv or where RLM_DEV_VENV says, the others in .venv-run and .venv-bench.
#
# A stamp in each environment holds the pyproject.toml that it was made from: while the two are equal, nothing is
# installed. Packages come from wherever uv and pip are configured to find them.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

environment() {
    local kind=$1 folder dev=${RLM_DEV_VENV:-$root/.venv}
    [[ $dev == /* ]] || dev=$PWD/$dev
    case $kind in
        dev) folder=$dev ;;
        *) folder=$root/.venv-$kind ;;
    esac
    if [[ $kind == run ]] && ready "$dev" dev; then
        folder=$dev  # it holds all that is needed
    elif ! ready "$folder" "$kind"; then
        prepare "$folder" "$kind"
    fi
    python=$folder/bin/python
}

ready() {
    [[ -x $1/bin/python && -f $1/rlm-stamp ]] && stamp "$2" | cmp -s - "$1/rlm-stamp"
}

stamp() {
    echo "$1 environment of $root"
    cat "$root/pyproject.toml"
}

prepare() {
    local folder=$1 kind=$2 what=(--editable '.[science]')
    [[ $kind == run ]] || what+=(--group "$kind")

    mkdir -p "$folder" && [[ -w $folder ]] ||
        fail "$folder cannot be written to; perhaps another user made it." \
            "Remove it, or set RLM_DEV_VENV to a folder of your own for the development environment."
    if command -v flock >/dev/null; then  # of two scripts at once the second waits, and finds all done
        exec 9>"$folder.lock"
        flock 9
        ! ready "$folder" "$kind" || { exec 9>&-; return; }
    fi

    # An environment holds absolute paths, so in a copied repository ours would lead back to the original.
    # One that RLM_DEV_VENV names is not ours to remove.
    if [[ $folder == "$root"/.venv* && $(head -n 1 "$folder/rlm-stamp" 2>&1) != "$kind environment of $root" ]]; then
        rm -rf "$folder"
    fi
    echo "Preparing $folder ..." >&2
    install "$folder" "${what[@]}" || fail "$folder could not be prepared; the lines above say why."
    stamp "$kind" >"$folder/rlm-stamp"
    exec 9>&-
}

install() {
    if command -v uv >/dev/null; then
        install_with_uv "$@" && return
        echo "uv could not do it. Trying venv and pip, which may be configured otherwise ..." >&2
    fi
    install_with_pip "$@"
}

install_with_uv() {
    local folder=$1 base
    base=$(base_python) || base='>=3.11'  # uv fetches one where it may
    [[ -x $folder/bin/python ]] || uv venv --quiet --python "$base" "$folder" || return
    (cd "$root" && uv pip install --quiet --python "$folder/bin/python" "${@:2}")
}

install_with_pip() {
    local folder=$1 base
    base=$(base_python) ||
        fail "This needs Python 3.11 or newer; none answers to the names python3, python3.11 ... python3.14." \
            "Install one, or install uv, which can fetch one."
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$base cannot make virtual environments: its modules venv and ensurepip are missing." \
            "On Debian and Ubuntu they come with a package of their own: apt-get install python3-venv" \
            "Or install uv, which does without them."
    "$folder/bin/python" -m pip --version >/dev/null 2>&1 || "$base" -m venv "$folder" || return
    # Groups of dependencies need pip 25.1; a venv starts with the pip that its Python came with.
    pip_install "$folder" --upgrade 'pip>=25.1' && pip_install "$folder" "${@:2}"
}

pip_install() {
    (cd "$root" && "$1/bin/python" -m pip install --quiet --disable-pip-version-check "${@:2}")
}

base_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14 python; do
        "$name" -c 'import sys; sys.version_info >= (3, 11) or sys.exit(1); print(sys.executable)' 2>/dev/null && return
    done
    return 1
}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}
