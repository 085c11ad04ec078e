/* The topology file: what it reads, what it refuses with which words, and that what it writes it reads again. */
#include "topology/topology.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"

#define KEY "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"

static const char example[] = "cluster: home\n"
                              "coordinator: {listen: \"tcp://192.168.1.10:7100\"}\n"
                              "model: {ctx: 8192, parallel: 4, kv: f16}\n"
                              "power: {price_per_kwh: 0.30 EUR}\n"
                              "nodes:\n"
                              "  tower:\n"
                              "    address: tcp://192.168.1.10:7101      # absent: the node dials in (NAT)\n"
                              "    key: "KEY"\n"
                              "    ram: 16GiB\n"
                              "    threads: 8\n"
                              "    devices: {\"cuda:0\": {memory: 22GiB}}\n"
                              "    model_dir: /models\n"
                              "    watts: 350\n"
                              "    profile: {cpu: {read: 40GB/s, Q4_K: 900GOP/s}, \"cuda:0\": {read: 850GB/s, Q4_K: 70TOP/s}, disk: 3GB/s}\n"
                              "  attic: {key: " KEY ", ram: 48GiB, standby: true}\n"
                              "links:\n"
                              "  default: {rtt: 0.3ms, rate: 2.5Gbit/s}\n"
                              "  tower-attic: {rtt: 2ms, rate: 300Mbit/s}\n"
                              "  coordinator-attic: {rtt: 150us}\n"
                              "groups: [{share: memory, devices: [tower/cpu, attic/cpu], read: 47GB/s}, {share: uplink, nodes: [tower, attic], rate: 1Gbit/s}]\n"
                              "pins: [{layers: 0-9, node: tower}, {head: tower}, {never: attic, what: head}, {embed: tower}, {never: attic, what: 3-4}]\n";

static struct topology *parse(const char *text, struct err *err)
{
    return topology_parse("t.yaml", text, strlen(text), err);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-5 * fabs(b);
}

static void check_example(const struct topology *t, const char *how)
{
    const struct topology_node *tower = &t->nodes[0], *attic = &t->nodes[1];
    is_int(t->n_nodes, 2, "%s: nodes", how);
    is_str(t->cluster, "home", "%s: cluster", how);
    is_str(t->listen, "tcp://192.168.1.10:7100", "%s: listen", how);
    ok(t->ctx == 8192 && t->parallel == 4 && strcmp(t->kv, "f16") == 0, "%s: model", how);
    ok(near(t->price_per_kwh, 0.30) && strcmp(t->currency, "EUR") == 0, "%s: price", how);
    is_str(tower->address, "tcp://192.168.1.10:7101", "%s: address", how);
    ok(attic->address == NULL && attic->standby && !tower->standby, "%s: no address, standby", how);
    ok(tower->devices[0].memory_bytes == (uint64_t)16 << 30 && tower->devices[1].memory_bytes == (uint64_t)22 << 30, "%s: sizes", how);
    ok(near(tower->devices[0].read_bps, 40e9) && near(tower->devices[1].rates[0].ops[2], 70e12) && near(tower->disk_bps, 3e9), "%s: rates", how);
    is_str(tower->devices[1].rates[0].type, "Q4_K", "%s: a quantization", how);
    ok(near(t->default_rtt_us, 300) && near(t->default_bps, 2.5e9 / 8), "%s: default link", how);
    ok(t->n_links == 2 && t->links[0].a == 0 && t->links[0].b == 1 && near(t->links[0].bps, 37.5e6), "%s: a link", how);
    ok(t->links[1].a == TOPOLOGY_COORDINATOR && t->links[1].bps < 0, "%s: half a link to the coordinator", how);
    ok(t->n_groups == 2 && !t->groups[0].uplink && t->groups[0].n_members == 2 && t->groups[1].uplink, "%s: groups", how);
    ok(t->n_pins == 5 && t->pins[0].last == 9 && t->pins[2].never && t->pins[2].node == 1 && t->pins[4].first == 3, "%s: pins", how);
}

static void test_example(void)
{
    struct err err = {0};
    struct strbuf out;
    struct topology *t = parse(example, &err), *again;
    if (!ok(t != NULL, "the example of docs/planning.md is read: %s", err.text))
        return;
    check_example(t, "read");
    strbuf_init(&out, 1 << 20);
    ok(topology_write(t, &out, &err) == 0, "it is written");
    again = parse(strbuf_str(&out), &err);
    if (ok(again != NULL, "what was written is read again: %s", err.text))
        check_example(again, "written and read");
    topology_destroy(again);
    strbuf_fini(&out);
    topology_destroy(t);
}

static const struct {
    const char *text, *said;
} wrong[] = {
    {"", "t.yaml:1:1: the file is empty"},
    {"cluster: home\n", "t.yaml:1:1: there are no nodes"},
    {"[]", "t.yaml:1:1: the file is a list; a mapping (key: value) is expected"},
    {"nodes:\n  a: {ram: 8GiB}\nnode: 3\n", "t.yaml:3:1: unknown key \"node\"; did you mean \"nodes\"?"},
    {"nodes:\n  a: {ram: 8GiB, adress: x}\n", "t.yaml:2:18: unknown key \"adress\"; did you mean \"address\"?"},
    {"nodes:\n  a: {ram: 8GiB, ram: 9GiB}\n", "t.yaml:2:18: \"ram\" stands here a second time; it is already in line 2"},
    {"nodes:\n  a: {ram: 8GiB}\n  a: {ram: 9GiB}\n", "t.yaml:3:3: \"a\" stands here a second time"},
    {"nodes:\n  a: {ram: 8}\n", "t.yaml:2:12: ram: \"8\" has no unit; a size such as 16GiB or 512MB is expected"},
    {"nodes:\n  a: {ram: 8GX}\n", "\"8GX\" has an unknown unit"},
    {"nodes:\n  a: {ram: -8GiB}\n", "\"-8GiB\" is not a size"},
    {"nodes:\n  a: {ram: 99999999999999TiB}\n", "is too much"},
    {"nodes:\n  a: {ram: [1]}\n", "t.yaml:2:12: ram is a list; a value is expected"},
    {"nodes:\n  a: {}\n", "t.yaml:2:3: node a has neither ram nor devices"},
    {"nodes:\n  a: {ram: 8GiB, threads: many}\n", "threads is \"many\"; a whole number from 1 to 1024"},
    {"nodes:\n  a: {ram: 8GiB, threads: 0}\n", "threads is \"0\"; a whole number from 1 to 1024"},
    {"nodes:\n  a: {ram: 8GiB, standby: maybe}\n", "standby is \"maybe\"; true or false"},
    {"nodes:\n  a: {ram: 8GiB, address: 10.0.0.1}\n", "address is \"10.0.0.1\"; tcp://HOST:PORT is allowed"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://10.0.0.1\"}\n", "tcp://HOST:PORT"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://10.0.0.1:99999\"}\n", "t.yaml:2:27: address is \"tcp://10.0.0.1:99999\"; its port is no number from 1 to 65535"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://10.0.0.1:0\"}\n", "no number from 1 to 65535"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://fe80::1:7101\"}\n", "or tcp://[IPv6]:PORT"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://*:7101\"}\n", "tcp://HOST:PORT is allowed"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://Boss:7100\"}\ncoordinator: {listen: \"tcp://boss:7100\"}\n",
     "t.yaml:2:27: address \"tcp://Boss:7100\" of node a is where the coordinator listens (\"tcp://boss:7100\")"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://127.0.0.1:7100\"}\ncoordinator: {listen: \"tcp://0.0.0.0:7100\"}\n", "is where the coordinator listens"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://localhost:7100\"}\ncoordinator: {listen: \"tcp://[::]:7100\"}\n", "is where the coordinator listens"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://localhost:7100\"}\ncoordinator: {listen: \"tcp://127.0.0.1:7100\"}\n", "is where the coordinator listens"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://0.0.0.0:7101\"}\n",
     "t.yaml:2:27: address is \"tcp://0.0.0.0:7101\", every address of a machine, good only to listen at; write the one that others dial"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://[::]:7101\"}\n", "every address of a machine"},
    {"nodes:\n  a: {ram: 8GiB, address: \"tcp://h:1\"}\n  c: {ram: 8GiB}\n  b: {ram: 8GiB, address: \"tcp://H:1\"}\n",
     "t.yaml:4:27: address \"tcp://H:1\" of node b is node a's already (line 2, column 27)"},
    {"nodes:\n  a:\n    devices: {\"cuda:0\": {memory: 1GiB}, \"cpu:1\": {memory: 4GiB}}\n    ram: 8GiB\n",
     "t.yaml:3:41: node a has cpu:1 and ram (line 4, column 10), which is the same memory twice"},
    {"nodes:\n  a: {ram: 8GiB, key: abc}\n", "t.yaml:2:23: key is no key: it is 64 hexadecimal digits"},
    {"nodes:\n\ta:\n\t\tram: 8GiB\n", "t.yaml:2:1: a tab; YAML is indented with spaces"},
    {"nodes:\n  a b: {ram: 8GiB}\n", "t.yaml:2:3: \"a b\" is no name for a node"},
    {"nodes:\n  default: {ram: 8GiB}\n", "is no name for a node"},
    {"nodes:\n  a: {ram: 8GiB, devices: {gpu: {memory: 1GiB}}}\n", "unknown device \"gpu\"; cuda:0"},
    {"nodes:\n  a: {ram: 8GiB, devices: {\"cuda:0\": {}}}\n", "cuda:0 has no memory"},
    {"nodes:\n  a: {ram: 8GiB, profile: {\"cuda:0\": {read: 1GB/s}}}\n", "unknown device \"cuda:0\"; known are disk, cpu"},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {peers: {\"cuda:0\": 1GB/s}}}}\n", "unknown device \"cuda:0\"; known are cpu"},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {peers: {cpu: 1GB/s}}}}\n", "cpu is no peer of itself"},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {peers: 1GB/s}}}\n", "peers is"},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {\"Q4, K\": 1GOP/s}}}\n", "unknown measurement \"Q4, K\""},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {read: 0.00000000001B/s}}}\n", "is too little to be anything; at least 1e-09B/s"},
    {"power: {price_per_kwh: \"0.3 a}\"}\nnodes:\n  a: {ram: 8GiB}\n", "price_per_kwh is \"0.3 a}\""},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {attention: [1GOP/s, 2GOP/s]}}}\n", "attention has 2 rates"},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {red: 1GB/s}}}\n", "unknown measurement \"red\"; did you mean \"read\"?"},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {read: 0GB/s}}}\n", "read is 0; it must be more"},
    {"nodes:\n  a: {ram: 8GiB, profile: {cpu: {Q4_K: 9GB/s}}}\n", "Q4_K: \"9GB/s\" has an unknown unit; operations a second"},
    {"nodes:\n  a: {ram: 8GiB, disk_tier: true}\n", "disk_tier needs the disk's rate"},
    {"nodes:\n  a: {ram: 8GiB}\nlinks: {a-b: {rtt: 1ms}}\n", "t.yaml:3:9: \"a-b\" names no link"},
    {"nodes:\n  a: {ram: 8GiB}\nlinks: {a-a: {rtt: 1ms}}\n", "\"a-a\" is a link of a node with itself"},
    {"nodes:\n  a: {ram: 8GiB}\n  b: {ram: 8GiB}\nlinks: {a-b: {rtt: 1ms}, b-a: {rtt: 2ms}}\n", "a second time, in whichever order"},
    {"nodes:\n  a: {ram: 8GiB}\n  a-b: {ram: 8GiB}\n  b: {ram: 1GiB}\n  b-b: {ram: 1GiB}\nlinks: {a-b-b: {rtt: 1ms}}\n", "can be read as several pairs"},
    {"nodes:\n  a: {ram: 8GiB}\nlinks: {default: {rtt: 1GiB}}\n", "rtt: \"1GiB\" has an unknown unit; a time such as 0.3ms"},
    {"nodes:\n  a: {ram: 8GiB}\ngroups: [{share: memory}]\n", "t.yaml:3:10: a group is {share: memory, devices:"},
    {"nodes:\n  a: {ram: 8GiB}\ngroups: [{share: disk}]\n", "unknown share \"disk\"; known are memory, uplink"},
    {"nodes:\n  a: {ram: 8GiB}\ngroups: [{share: memory, devices: [a/cpu], read: 1GB/s}]\n", "a group has at least two members"},
    {"nodes:\n  a: {ram: 8GiB}\ngroups: [{share: memory, devices: [a/cpu, a/cpu], read: 1GB/s}]\n", "in a group of this kind already"},
    {"nodes:\n  a: {ram: 8GiB}\ngroups: [{share: memory, devices: [a/gpu, a/cpu], read: 1GB/s}]\n", "\"a/gpu\" is no device of this file"},
    {"nodes:\n  a: {ram: 8GiB}\npins: [{layers: 9-0, node: a}]\n", "\"9-0\" are no layers"},
    {"nodes:\n  a: {ram: 8GiB}\npins: [{layers: 0-9, node: bob}]\n", "t.yaml:3:28: unknown node \"bob\""},
    {"nodes:\n  tower: {ram: 8GiB}\npins: [{head: tover}]\n", "did you mean \"tower\"?"},
    {"nodes:\n  a: {ram: 8GiB}\npins: [{head: a, node: a}]\n", "a pin is {layers: 0-9, node: NODE}"},
    {"nodes:\n  a: {ram: 8GiB}\npins: [{hed: a}]\n", "unknown key \"hed\"; did you mean \"head\"?"},
    {"nodes:\n  a: {ram: 8GiB}\nmodel: {kv: f8}\n", "t.yaml:3:13: unknown kv \"f8\"; known are f16, f32, q8_0"},
    {"nodes:\n  a: {ram: 8GiB}\nmodel: {ctx: 1.5}\n", "ctx is \"1.5\"; a whole number"},
    {"nodes:\n  a: {ram: 8GiB}\npower: {price_per_kwh: cheap}\n", "price_per_kwh is \"cheap\""},
    {"nodes:\n  a: {ram: 8GiB\n", "no YAML"},
    {"nodes:\n  a: {ram: *size}\n", "t.yaml:2:12: an alias for an anchor that does not stand before it"},
    {"nodes: &n\n  a: {ram: 8GiB, profile: *n}\n", "an alias inside what it stands for"},
    {"nodes:\n  a: {ram: 8GiB}\n---\nnodes: {}\n", "a second document"},
    {"nodes:\n  ? [a]\n  : {ram: 1GiB}\n", "a list as a key; a name is expected"},
    {"x: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n", "nested deeper than 16 levels"},
    {"nodes:\n  a: {ram: 8GiB, key: \"a\\0b\"}\n", "a zero byte"},
    {"nodes:\n  a: {ram: 8GiB, key: \"a\\nb\"}\n", "control character"},
    {"nodes:\n  a: {ram: 8GiB, key: \"\xff\"}\n", "t.yaml:2:24: no text: invalid leading UTF-8 octet; save the file as UTF-8"},
};

static void test_wrong(void)
{
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct err err = {0};
        struct topology *t = parse(wrong[i].text, &err);
        ok(t == NULL && strstr(err.text, wrong[i].said), "refused: %s (said: %s)", wrong[i].said, err.text);
        ok(t != NULL || err.kind == ERR_INPUT, "… as wrong input");
        topology_destroy(t);
    }
}

/* Few bytes that stand for many; too many of everything. */
static void test_bounds(void)
{
    static char text[TOPOLOGY_MAX_BYTES + 2];
    struct err err = {0};
    struct topology *t;
    size_t at = (size_t)snprintf(text, sizeof text, "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 12; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1,
                               i - 1, i - 1, i - 1, i - 1);
    ok(!parse(text, &err) && strstr(err.text, "more than 32768 keys and values"), "a billion laughs: %s", err.text);
    at = (size_t)snprintf(text, sizeof text, "nodes:\n");
    for (int i = 0; i <= TOPOLOGY_MAX_NODES; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "  n%d: {ram: 1GiB}\n", i);
    ok(!parse(text, &err) && strstr(err.text, "t.yaml:62:3: more than 60 nodes"), "one node too many: %s", err.text);
    *strrchr(text, 'n') = '\0';
    t = parse(text, &err);
    ok(t != NULL && t->n_nodes == TOPOLOGY_MAX_NODES, "and as many as may be: %s", err.text);
    topology_destroy(t);
    memset(text, ' ', TOPOLOGY_MAX_BYTES + 1);
    ok(!topology_parse("t.yaml", text, TOPOLOGY_MAX_BYTES + 1, &err) && err.kind == ERR_LIMIT, "too long a file: %s", err.text);
    memset(text, '[', 4000);
    text[4000] = '\0';
    ok(!parse(text, &err), "thousands of open lists: %s", err.text);
}

static void test_quantities(void)
{
    static const struct {
        const char *text;
        enum topology_unit unit;
        double value;
    } good[] = {
        {"16GiB", TOPOLOGY_BYTES, 0x1p34}, {"1.5 GB", TOPOLOGY_BYTES, 1.5e9},  {"0.3ms", TOPOLOGY_TIME_US, 300}, {"50us", TOPOLOGY_TIME_US, 50},
        {"800ns", TOPOLOGY_TIME_US, 0.8},  {"2.5Gbit/s", TOPOLOGY_RATE, 312.5e6}, {"300Mbit/s", TOPOLOGY_RATE, 37.5e6}, {"40GB/s", TOPOLOGY_RATE, 40e9},
        {"70TOP/s", TOPOLOGY_OPS, 70e12},  {"900GOP/s", TOPOLOGY_OPS, 9e11},   {"350W", TOPOLOGY_WATTS, 350},    {"1.2kW", TOPOLOGY_WATTS, 1200},
        {"350", TOPOLOGY_WATTS, 350},      {"0", TOPOLOGY_TIME_US, 0},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct err err = {0};
        struct strbuf out;
        double value = -1, again = -1;
        ok(topology_quantity(good[i].text, strlen(good[i].text), good[i].unit, &value, &err) == 0 && near(value, good[i].value), "%s is %g: %s",
           good[i].text, value, err.text);
        strbuf_init(&out, 64);
        topology_quantity_text(&out, good[i].unit, value);
        ok(topology_quantity(strbuf_str(&out), out.len, good[i].unit, &again, &err) == 0 && near(again, value), "and written %s", strbuf_str(&out));
        strbuf_fini(&out);
    }
}

/* What is read can be written, and is read again. */
static void test_again(void)
{
    static const char *const texts[] = {
        "coordinator: {listen: \"tcp://127.0.0.1:7100\"}\nnodes: {a: {ram: 1GiB, address: \"tcp://127.0.0.2:7100\"}, b: {ram: 1GiB, address: \"tcp://[::1]:7100\"}}\n",
        "power: {price_per_kwh: 0.00001 EUR/h}\nnodes: {a: {ram: 1GiB, watts: 0.0001W}}\n",
        "power: {price_per_kwh: 0.30 \xe2\x82\xac}\nnodes: {a: {ram: 1GiB}}\n",
        "nodes: {a: {ram: 1GiB, profile: {cpu: {read: 0.0001bit/s, step: 0.0001ns, Q4_K: 0.00001MOP/s, attention: [1MOP/s, 2MOP/s, 0.000001MOP/s]}}}}\n",
        "nodes: {a: {ram: 1GiB, devices: {\"cuda:0\": {memory: 1GiB}, \"cuda:1\": {memory: 1GiB}}, profile: {\"cuda:0\": {back: 3GB/s, peers: {\"cuda:1\": 123456789B/s}}}}}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct err err = {0};
        struct strbuf once, twice;
        struct topology *t = topology_parse("once", texts[i], strlen(texts[i]), &err), *again = NULL;
        strbuf_init(&once, TOPOLOGY_MAX_BYTES);
        strbuf_init(&twice, TOPOLOGY_MAX_BYTES);
        if (t && topology_write(t, &once, &err) == 0 && (again = topology_parse("again", strbuf_str(&once), once.len, &err)))
            topology_write(again, &twice, &err);
        ok(again && strcmp(strbuf_str(&once), strbuf_str(&twice)) == 0 && strstr(strbuf_str(&once), "e-") == NULL, "written and read again: %s%s", err.text, strbuf_str(&once));
        strbuf_fini(&once);
        strbuf_fini(&twice);
        topology_destroy(again);
        topology_destroy(t);
    }
}

static struct topology_node stranger(const char *name)
{
    return (struct topology_node){.name = name, .key = KEY, .model_dir = "/k\"ey: {", .n_devices = 3, .threads = 4, .disk_bps = 2e9,
                                  .devices = {{.name = "cpu", .memory_bytes = (uint64_t)8 << 30, .read_bps = 41.5e9, .step_us = 90, .attention_ops = {1e10, 2e10, 5e10},
                                               .rates = {{"Q4_K", {1.2e11, 3.1e11, 4.2e11}}, {"Q6_K", {2e11, 2e11, 2e11}}}, .n_rates = 2},
                                              {.name = "cuda:0", .memory_bytes = 12345678901, .attention_ops = {3e12, 3e12, 3e12}},
                                              {.name = "cuda:1", .memory_bytes = 12345678901, .read_bps = 9e11, .copy_bps = 25e9, .back_bps = 24e9,
                                               .peers = {{"cuda:0", 50e9}, {"cpu", 1e9}}, .n_peers = 2}}};
}

static void test_joining(void)
{
    char path[] = "/tmp/sc-topology-XXXXXX", old[64];
    struct err err = {0};
    int fd = mkstemp(path);
    struct topology *t = topology_create(&err), *again;
    struct topology_node n = stranger("one");
    close(fd);
    snprintf(old, sizeof old, "%s.old", path);
    ok(topology_put(t, &n, &err) == 0 && topology_save(t, path, &err) == 0, "a worker joins: %s", err.text);
    n = stranger("two");
    n.threads = 6;
    ok(topology_put(t, &n, &err) == 0 && topology_save(t, path, &err) == 0, "another: %s", err.text);
    n = stranger("one");
    n.threads = 12;
    ok(topology_put(t, &n, &err) == 0 && t->n_nodes == 2 && topology_save(t, path, &err) == 0, "the first again, changed: %s", err.text);
    again = topology_load(path, &err);
    ok(again && again->n_nodes == 2 && again->nodes[0].threads == 12 && strcmp(again->nodes[1].key, KEY) == 0 && strcmp(again->nodes[1].model_dir, "/k\"ey: {") == 0 &&
           again->nodes[1].devices[1].memory_bytes == 12345678901 && again->nodes[1].devices[0].n_rates == 2 && near(again->nodes[0].devices[0].rates[0].ops[0], 1.2e11) &&
           near(again->nodes[0].devices[0].rates[0].ops[2], 4.2e11) && near(again->nodes[0].devices[0].rates[1].ops[1], 2e11),
       "the file is read: %s", err.text);
    const struct topology_device *cpu = &again->nodes[1].devices[0], *gpu = &again->nodes[1].devices[1], *other = &again->nodes[1].devices[2];
    ok(near(cpu->attention_ops[0], 1e10) && near(cpu->attention_ops[1], 2e10) && near(cpu->attention_ops[2], 5e10) && near(gpu->attention_ops[1], 3e12),
       "attention with its three rates, and with one");
    ok(near(other->copy_bps, 25e9) && near(other->back_bps, 24e9) && other->n_peers == 2 && strcmp(other->peers[0].device, "cuda:0") == 0 &&
           near(other->peers[0].bps, 50e9) && strcmp(other->peers[1].device, "cpu") == 0 && gpu->n_peers == 0,
       "copies, back, and to peers");
    topology_destroy(again);
    again = topology_load(old, &err);
    ok(again && again->nodes[0].threads == 4, "and its last version: %s", err.text);
    topology_destroy(again);
    n = stranger("bad name");
    ok(topology_put(t, &n, &err) != 0 && t->n_nodes == 2 && strstr(err.text, "is no name for a node"), "a bad name is refused: %s", err.text);
    n = stranger("three");
    n.address = "tcp://10.0.0.1:7101";
    ok(topology_put(t, &n, &err) == 0, "an address of its own: %s", err.text);
    n = stranger("four");
    n.address = "tcp://10.0.0.1:7101";
    ok(topology_put(t, &n, &err) != 0 && t->n_nodes == 3 && strstr(err.text, "three's already"), "that of another is refused: %s", err.text);
    n.address = "nowhere";
    ok(topology_put(t, &n, &err) != 0 && strstr(err.text, "tcp://HOST:PORT"), "a bad address, too: %s", err.text);
    ok(topology_save(t, "/nonexistent/x.yaml", &err) != 0 && strstr(err.text, "/nonexistent/x.yaml"), "no such folder: %s", err.text);
    ok(!topology_load("/nonexistent/x.yaml", &err) && err.kind == ERR_NOT_FOUND, "no such file: %s", err.text);
    topology_destroy(t);
    unlink(path);
    unlink(old);
}

/* A node more in a file that a person wrote. */
static void test_noting(void)
{
    static const char *const files[] = {
        "# mine\ncluster: home   # the house\nnodes:\n  tower:\n    ram: 16GiB # half of it\n\n# how they are joined\nlinks:\n  default: {rtt: 1ms, rate: 1Gbit/s}\n",
        "nodes:\n        tower: {ram: 16GiB}\n# the end",
        "nodes: # all of them\n    # the big one\n    tower:\n      ram: 16GiB\n    attic: {ram: 8GiB, standby: true}",
    };
    char path[] = "/tmp/sc-topology-XXXXXX", old[64];
    int fd = mkstemp(path);
    struct err err = {0};

    close(fd);
    snprintf(old, sizeof old, "%s.old", path);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        FILE *f = fopen(path, "w");
        fputs(files[i], f);
        fclose(f);
        struct topology *t = topology_load(path, &err), *again;
        struct topology_node n = {.name = "new", .address = "tcp://10.0.0.9:7101", .n_devices = 1, .devices = {{.name = "cpu", .memory_bytes = 4096}}};
        if (!ok(t && topology_put(t, &n, &err) == 0 && topology_note(t, "new", path, &err) == 0, "file %zu: a node is noted %s", i, err.text))
            continue;
        again = topology_load(path, &err);
        ok(again && again->n_nodes == t->n_nodes && topology_find(again, "new") != UINT32_MAX && topology_find(again, "tower") != UINT32_MAX,
           "it is read with all of them %s", err.text);
        size_t len;
        char *text = topology_text(path, &len, &err), *rest = strdup(files[i]);
        bool kept = text != NULL;
        for (char *at = rest, *line; kept && (line = strsep(&at, "\n"));)
            kept = strstr(text, line) != NULL;
        ok(kept, "its lines and comments are there");
        free(text);
        free(rest);
        topology_destroy(again);
        topology_destroy(t);
    }
    FILE *f = fopen(path, "w");
    fputs("nodes: {tower: {ram: 16GiB}}\n", f);
    fclose(f);
    struct topology *t = topology_load(path, &err), *again = NULL;
    struct topology_node n = {.name = "new", .n_devices = 1, .devices = {{.name = "cpu", .memory_bytes = 4096}}};
    ok(t && topology_put(t, &n, &err) == 0 && topology_note(t, "new", path, &err) == 0 && (again = topology_load(path, &err)), "nodes in braces: written anew");
    is_int(again ? again->n_nodes : 0, 2, "with all of them");
    topology_destroy(again);
    unlink(path);
    ok(topology_note(t, "new", path, &err) == 0 && (again = topology_load(path, &err)) && again->n_nodes == 2, "no file: one is written");
    topology_destroy(again);
    ok(topology_note(t, "nobody", path, &err) != 0, "nobody: %s", err.text);
    topology_destroy(t);
    unlink(path);
    unlink(old);
}

static void test_examples(void)
{
    static const char *const names[] = {"two-pcs", "homelab", "prima-home", "helix-24"};
    static const uint32_t nodes[] = {2, 4, 4, 24};
    const char *src = getenv("SC_SRC");
    char path[4096];
    for (size_t i = 0; i < 4; i++) {
        struct err err = {0};
        snprintf(path, sizeof path, "%s/examples/%s.yaml", src ? src : ".", names[i]);
        struct topology *t = topology_load(path, &err);
        ok(t && t->n_nodes == nodes[i], "examples/%s.yaml: %s", names[i], err.text);
        topology_destroy(t);
    }
}

int main(void)
{
    test_example();
    test_wrong();
    test_bounds();
    test_quantities();
    test_again();
    test_joining();
    test_noting();
    test_examples();
    return tap_done();
}
