# Every file that git tracks is part of `make dist`: TAP.
cd "$SC_SRC" || exit 1
if ! git rev-parse --is-inside-work-tree >/dev/null 2>&1 || [ "$(git rev-parse --show-cdup)" != "" ]; then
    echo "1..0 # SKIP not in a git work tree"
    exit 0
fi
listed=$(env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL make -s --no-print-directory -C "$SC_BUILD" print-dist | sed "s#^$SC_SRC/##; s#^\.\./##" | LC_ALL=C sort -u)
missing=$(git ls-files | grep -v -E '^\.gitignore$|/\.gitkeep$' | while read -r file; do
    part=$file
    found=no
    # A listed folder brings all that is in it.
    while [ "$part" != . ]; do
        if echo "$listed" | grep -q -x -F "$part"; then found=yes && break; fi
        part=$(dirname "$part")
    done
    [ $found = yes ] || echo "$file"
done)
if [ -z "$missing" ]; then
    echo "ok 1 - every tracked file is distributed"
else
    echo "not ok 1 - every tracked file is distributed"
    echo "$missing" | sed 's/^/# not in a _SOURCES or EXTRA_DIST: /'
fi
echo "1..1"
[ -z "$missing" ]
