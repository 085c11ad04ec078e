/* Workers that are reached over tcp, each with keys of its own: a topology file, restarts on either side, keys that nobody knows,
 * nodes that dial, neighbours that cannot reach each other, invitations. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf/gguf.h"
#include "proto/invite.h"
#include "tests/model/model_build.h"
#include "tests/pipeline/remote.h"
#include "tests/tap.h"

enum { CTX = 128, SAID_MS = 50000 };

static struct remote r;
static char model[REMOTE_PATH + 32], folder[REMOTE_PATH];
static const char *const local[] = {"--model-dir", folder, NULL};

static bool run(void)
{
    bool good;
    remote_open(&r, model, CTX);
    good = remote_ready(&r) && remote_same(&r);
    return good;
}

static void test_topology(void)
{
    remote_init(&r, "remote", 2);
    remote_write_topology(&r, 3, 3);
    remote_start(&r, 0, local);
    remote_start(&r, 1, local);
    ok(run(), "two workers of a topology file: one process's answers");
    remote_close(&r);
    remote_stop(&r, 1, SIGTERM);
    remote_start(&r, 1, local);
    ok(run(), "the same after one of them was restarted and the coordinator came anew");
    ok(remote_log_has(r.nodes[0].log, "from memory", 1000), "the other kept its weights meanwhile");
    remote_stop(&r, 0, SIGKILL);
    remote_start(&r, 0, local);
    ok(remote_same(&r), "one that is killed and started again is taken back");
    remote_fini(&r);
}

static void test_stranger(void)
{
    remote_init(&r, "remote", 2);
    remote_write_topology(&r, 1, 1);
    remote_start(&r, 0, local);
    remote_dialable(&r, 1, false);
    remote_open(&r, model, CTX);
    ok(remote_ready(&r), "a cluster of one");
    remote_start(&r, 1, local);
    ok(remote_said(&r, "is not trusted here: an invitation or a file trusted/NAME.pub would admit it", SAID_MS), "a key that nobody knows is refused, and why");
    ok(remote_said(&r, r.nodes[1].key, 0), "… by its key");
    ok(remote_same(&r), "… and nothing else is disturbed");
    remote_fini(&r);
}

/* dials: nodes that cannot be reached, as bits. */
static void test_nat(unsigned n, unsigned dials, const char *what)
{
    remote_init(&r, "remote", n);
    for (unsigned i = 0; i < n; i++)
        remote_dialable(&r, i, !(dials >> i & 1));
    remote_write_topology(&r, (1u << n) - 1, (1u << n) - 1);
    for (unsigned i = 0; i < n; i++)
        remote_start(&r, i, local);
    ok(run(), "%s", what);
    remote_stop(&r, n - 1, SIGKILL);
    remote_start(&r, n - 1, local);
    ok(remote_same(&r), "… and after the last of them was lost and has come again");
    remote_fini(&r);
}

/* A cluster is upgraded node by node: workers that speak an older protocol, on either side of one that speaks the newest. */
static void test_version(int protocol)
{
    char before[16];
    const char *const older[] = {"--model-dir", folder, "--protocol", before, NULL};

    snprintf(before, sizeof before, "%d", protocol);
    remote_init(&r, "remote", 3);
    remote_dialable(&r, 2, false);
    remote_write_topology(&r, 7, 7);
    remote_start(&r, 0, older);
    remote_start(&r, 1, local);
    remote_start(&r, 2, older);
    ok(run(), "two workers that speak protocol %s beside one that speaks %d", before, PROTOCOL_MAX);
    remote_stop(&r, 0, SIGKILL);
    remote_start(&r, 0, local);
    ok(remote_same(&r), "… and after one of them was upgraded");
    remote_fini(&r);
}

static void test_join(void)
{
    struct err err;
    char token[INVITE_MAX_TOKEN], text[8192] = "";
    const char *address = r.listen;
    const char *const joining[] = {"--model-dir", folder, "--join", token, "--name", "attic", NULL};

    remote_init(&r, "remote", 2);
    remote_write_topology(&r, 1, 1);
    remote_dialable(&r, 1, false);
    remote_start(&r, 0, local);
    remote_open(&r, model, CTX);
    ok(remote_ready(&r), "a cluster of one, again");
    struct keys *k = keys_open(r.keys, NULL, &err);
    is_int(k ? invite_create(k, &address, 1, 60, token, &err) : -1, 0, "an invitation");
    keys_close(k);
    remote_start(&r, 1, joining);
    ok(remote_said(&r, "node attic is here", SAID_MS), "a node joins by it");
    FILE *f = fopen(r.topology_path, "r");
    if (f) {
        size_t len = fread(text, 1, sizeof text - 1, f);
        text[len] = '\0';
        fclose(f);
    }
    has_str(text, "attic", "… and is written down in the topology file");
    ok(!strstr(text, r.nodes[1].key), "… without its key: that is the trusted keys' business");
    is_int(engine_command(r.engine, ENGINE_REPLAN, NULL, 0, &err), 0, "a new plan");
    ok(remote_same(&r), "… answers");
    remote_stop(&r, 1, SIGTERM);
    remote_start(&r, 1, joining);
    for (int i = 0; i < 1000 && remote_log_count(r.nodes[1].log, "coordinator boss connected") < 2; i++)
        usleep(50000);
    is_int((long long)remote_log_count(r.nodes[1].log, "coordinator boss connected"), 2, "the same command again: it joined before, it dials");
    remote_close(&r);
    remote_open(&r, model, CTX);
    ok(remote_ready(&r) && remote_same(&r), "a coordinator that starts from that file finds both");
    remote_fini(&r);
}

/* Workers without the model, or with a file of its name in another quantization. */
static void test_network(void)
{
    char other[REMOTE_PATH + 16], cache[REMOTE_PATH + 16];
    const char *const none[] = {"--cache", cache, NULL};
    const char *const wrong[] = {"--model-dir", r.nodes[1].folder, NULL};

    remote_init(&r, "remote", 3);
    snprintf(cache, sizeof cache, "%s/cache", r.nodes[0].folder);
    snprintf(other, sizeof other, "%s/llama.gguf", r.nodes[1].folder);
    model_write(model_spec_of("llama"), QUANT_Q4_0, other);
    remote_dialable(&r, 0, false);
    remote_write_topology(&r, 3, 3);
    remote_start(&r, 0, none);
    remote_start(&r, 1, wrong);
    ok(run(), "two workers without the model get their layers over the network: one process's answers");
    ok(remote_log_has(r.nodes[0].log, "from head-office", 1000), "… one, which dials, from the coordinator");
    ok(remote_log_has(r.nodes[1].log, "from head-office", 1000), "… and one that has a file of that name in another quantization");
    remote_stop(&r, 0, SIGKILL);
    remote_start(&r, 0, none);
    ok(remote_same(&r), "the first is killed and comes again");
    ok(remote_log_has(r.nodes[0].log, "from cache", 1000), "… and finds its layers in its cache");
    remote_close(&r);
    remote_stop(&r, 0, SIGTERM);
    remote_stop(&r, 1, SIGTERM);

    /* The coordinator has a header and nothing else; one node has the file. */
    char header[REMOTE_PATH + 32], full[REMOTE_PATH + 32];
    struct err err;
    size_t len = 0;
    struct gguf *g = gguf_open(model, false, &err);
    const void *bytes = g ? gguf_split_header(g, 0, &len) : NULL;
    snprintf(full, sizeof full, "%s", model);
    snprintf(header, sizeof header, "%s/header.gguf", r.folder);
    FILE *f = fopen(header, "w");
    if (f && bytes)
        fwrite(bytes, 1, len, f);
    if (f)
        fclose(f);
    gguf_close(g);
    remote_start(&r, 0, none + 2);
    remote_start(&r, 1, local);
    snprintf(model, sizeof model, "%s", header);
    ok(run(), "the coordinator has only the header: a node without a file is served by the one that has it");
    ok(remote_log_has(r.nodes[0].log, "from node1", 1000), "… by name");
    snprintf(model, sizeof model, "%s", full);
    remote_fini(&r);
}

int main(void)
{
    const char *build = getenv("SC_BUILD");
    char program[REMOTE_PATH];

    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(program, sizeof program, "%s/stagecoach", build ? build : ".");
    if (access(program, X_OK) != 0)
        tap_skip_all("%s is not there", program);
    snprintf(folder, sizeof folder, "%s", model_folder());
    snprintf(model, sizeof model, "%s/llama.gguf", folder);
    if (access(model, R_OK) != 0)
        model_write(model_spec_of("llama"), QUANT_Q8_0, model);
    remote_want(model, CTX);
    test_topology();
    test_stranger();
    test_nat(2, 2, "a node that dials, behind one that is dialed");
    test_nat(2, 1, "a node that dials, before one that is dialed");
    test_nat(3, 6, "two in a row that dial: the coordinator relays");
    test_nat(2, 3, "none that can be dialed");
    for (int protocol = PROTOCOL_MIN; protocol < PROTOCOL_MAX; protocol++)
        test_version(protocol);
    test_join();
    test_network();
    return tap_done();
}
