# A test fails by what a sanitizer says in a process of which it knows nothing: TAP.
n=0
ok() { # CONDITION'S STATUS, TEXT
    n=$((n + 1))
    if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; fi
}
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
run() { sh "$SC_SRC/tests/sanitized.sh" sh "$folder/test" >"$folder/said" 2>&1; }

echo 'exit 0' >"$folder/test"
run
ok $? "nothing is said: the test's status"
echo 'exit 3' >"$folder/test"
run
[ $? = 3 ] && [ ! -s "$folder/said" ]
ok $? "also if that is not 0"

# A sanitizer by hand, each of the three variables.
for name in ASAN TSAN UBSAN; do
    cat >"$folder/test" <<TEXT
path=\$(printf %s "\$${name}_OPTIONS" | tr : '\n' | sed -n 's/^log_path=//p' | tail -n 1)
echo "a race" >"\$path.worker.7"
exit 0
TEXT
    ! run && grep -q '^# a race' "$folder/said" && grep -q 'worker.7' "$folder/said"
    ok $? "${name}_OPTIONS: a report fails the test, and is shown"
done

# The real one, in a child of a child.
what="a report of the sanitizer itself"
n=$((n + 1))
if [ "${SC_SANITIZE:-no}" = no ]; then
    echo "ok $n - $what # SKIP no sanitizer's build"
else
    cat >"$folder/bad.c" <<'TEXT'
#include <pthread.h>
#include <stdlib.h>
static int shared;
static void *add(void *p)
{
    shared += *(int *)p;
    return p;
}
int main(int argc, char **argv)
{
    pthread_t t[2];
    char *volatile p = malloc((size_t)argc);
    (void)argv;
    for (int i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, add, &argc);
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    p[argc] = (char)shared; /* behind its end */
    free(p);
    return 1 << (31 + argc) == 7;
}
TEXT
    # shellcheck disable=SC2086
    $CC $SC_CFLAGS -g -pthread -o "$folder/bad" "$folder/bad.c" >"$folder/said" 2>&1 || sed 's/^/# /' "$folder/said"
    echo "$folder/bad >/dev/null 2>&1 | true; exit 0" >"$folder/test"
    if ! run && grep -q '^# .*Sanitizer' "$folder/said"; then
        echo "ok $n - $what"
    else
        echo "not ok $n - $what"
        sed 's/^/# /' "$folder/said"
    fi
fi
echo "1..$n"
