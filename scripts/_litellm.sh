# Sourced by the scripts beside it, after _environment.sh. Defines
#
#     litellm_versions    makes two environments ready: one with the oldest LiteLLM that the extra "llm" takes, one with
#                         the newest; they are named so
#
# They lie in .venv-litellm or where RLM_LITELLM_DIR says, and the tests look there. They hold LiteLLM and mcp, which is
# beside it wherever this project is, and nothing of the project itself. A stamp holds the range: while it is this one,
# nothing is installed; a newer release within it comes in when the folder is removed, as it is on a new machine.

litellm_versions() {
    local folder=${RLM_LITELLM_DIR:-$root/.venv-litellm} range
    [[ $folder == /* ]] || folder=$PWD/$folder
    export RLM_LITELLM_DIR=$folder
    range=$(cd "$root" && "$python" -c 'import tomllib
print(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["llm"][0])')
    litellm_ready "$folder" "$range" && return

    mkdir -p "$folder" && [[ -w $folder ]] ||
        fail "$folder cannot be written to; perhaps another user made it." \
            "Remove it, or set RLM_LITELLM_DIR to a folder of your own."
    if command -v flock >/dev/null; then  # of two scripts at once the second waits, and finds all done
        exec 6>"$folder/lock"
        flock 6
        ! litellm_ready "$folder" "$range" || { exec 6>&-; return; }
    fi
    [[ -f $folder/rlm-stamp || ! -e $folder/oldest && ! -e $folder/newest ]] ||
        fail "$folder holds something that is not ours." "Set RLM_LITELLM_DIR to a folder of its own."
    echo "Preparing $folder ..." >&2
    : >"$folder/rlm-stamp"  # what is not finished is ours too
    rm -rf "$folder/oldest" "$folder/newest"
    install_litellm "$folder" "$range" || fail "$folder could not be prepared; the lines above say why."
    echo "$range" >"$folder/rlm-stamp"
    exec 6>&-
}

litellm_ready() {
    [[ -x $1/oldest/bin/python && -x $1/newest/bin/python && -f $1/rlm-stamp && $(<"$1/rlm-stamp") == "$2" ]]
}

# The second one begins as a copy, of which only what differs is installed. An index may lack what the very newest asks
# for, most often certificates of the same week: it is then put in place of the newest that could be had with all that it
# asks for, since its own code is what is tested.
install_litellm() {
    local oldest=${2#*>=}
    install "$1/oldest" "litellm==${oldest%%,*}" 'mcp>=2.3,<3' &&
        cp -a "$1/oldest" "$1/newest" &&
        install "$1/newest" --upgrade "$2" &&
        install "$1/newest" --upgrade --no-deps "$2"
}
