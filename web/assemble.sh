#!/bin/sh
# assemble.sh SOURCE PAGE PART...: puts the page's parts (paths below SOURCE: one .html, then .css and .js in order) into the one
# file PAGE, and prints it as C: page_html, and page_gzip, the same compressed. Uses what every build machine has.
set -eu
export LC_ALL=C
src=$1 page=$2
shift 2

put() { # put SUFFIX PART...
    suffix=$1
    shift
    for part; do
        case $part in *"$suffix") cat "$src/$part" ;; esac
    done
}
frame=
for part; do case $part in *.html) frame=$src/$part ;; esac done
# A line that is @css@ or @js@ alone gives way to the parts.
while IFS= read -r line; do
    case $line in
    @css@) put .css "$@" ;;
    @js@) put .js "$@" ;;
    *) printf '%s\n' "$line" ;;
    esac
done <"$frame" >"$page"

array() {
    printf 'const unsigned char %s[] = {\n' "$1"
    od -An -v -tu1 | sed 's/  */,/g; s/^,//; s/$/,/'
    printf '};\nconst size_t %s_bytes = sizeof %s;\n' "$1" "$1"
}
echo '/* Made by web/assemble.sh. */'
echo '#include "front/page.h"'
array page_html <"$page"
gzip -9 -n -c "$page" | array page_gzip
