# ./dev package makes a package that can be installed, used and removed: TAP. SC_LONG=1 only: it builds everything once more.
cd "$SC_SRC" || exit 1
if [ -z "${SC_LONG:-}" ]; then
    echo "1..0 # SKIP SC_LONG=1 is not set"
    exit 0
fi
for tool in dpkg-deb dpkg-shlibdeps; do
    command -v $tool >/dev/null || { echo "1..0 # SKIP $tool is not installed"; exit 0; }
done
n=0 failed=0
ok() {
    n=$((n + 1))
    name=$1
    shift
    if said=$("$@" 2>&1); then echo "ok $n - $name"; else
        failed=1
        echo "not ok $n - $name"
        echo "$said" | tail -n 30 | sed 's/^/# /'
    fi
}
ok "./dev package" env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL DEBFULLNAME=Somebody DEBEMAIL=somebody@debian.org ./dev package
package=$(ls build-deb/stagecoach_*.deb)
ok "one package" test -e "$package"
listing=$(dpkg-deb -c "$package")
for file in usr/bin/stagecoach usr/share/man/man1/stagecoach-serve.1.gz usr/share/bash-completion/completions/stagecoach usr/share/doc/stagecoach/copyright usr/lib/systemd/user/stagecoach-worker@.service; do
    ok "holds $file" sh -c "echo '$listing' | grep -q '\\./$file\$'"
done
if command -v lintian >/dev/null; then
    ok "lintian finds nothing" lintian --fail-on error,warning "$package"
else
    n=$((n + 1))
    echo "ok $n # SKIP lintian is not installed"
fi
ok "needs libzmq" sh -c "dpkg-deb -f '$package' Depends | grep -q libzmq5"
if [ "$(id -u)" = 0 ] && ! dpkg -s stagecoach >/dev/null 2>&1; then
    ok "is installed" dpkg -i "$package"
    ok "runs" sh -c "/usr/bin/stagecoach --version | grep -q '^stagecoach '"
    ok "is removed" dpkg -r stagecoach
    ok "leaves nothing" sh -c "! test -e /usr/bin/stagecoach"
else
    n=$((n + 1))
    echo "ok $n # SKIP not root, or a package of that name is installed"
fi
echo "1..$n"
exit $failed
