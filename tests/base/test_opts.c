#include "base/opts_text.h"

#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "tests/tap.h"

struct shared {
    uint64_t ram;
    const char *kv;
};

struct values {
    bool json, paint;
    int64_t n;
    uint64_t seed;
    double temp;
    const char *model;
    struct opt_list prompts;
    struct shared shared;
};

static const char *const kinds[] = {"f16", "f32", "q8_0", NULL};
static const struct opt own[] = {
    {"model", 'm', OPT_STRING, .required = true, .arg = "FILE", .offset = offsetof(struct values, model), .help = "GGUF file to run"},
    {"prompt", 'p', OPT_LIST, .arg = "TEXT", .offset = offsetof(struct values, prompts), .help = "Text to go on from"},
    {"count", 'n', OPT_INT, .arg = "N", .offset = offsetof(struct values, n), .min = -1, .max = 1000, .def = "128", .help = "Tokens"},
    {"seed", 0, OPT_UINT, .arg = "S", .offset = offsetof(struct values, seed), .help = "Seed"},
    {"temp", 0, OPT_FLOAT, .arg = "T", .offset = offsetof(struct values, temp), .max = 100, .def = "0.8",
     .help = "Temperature, a rather long explanation of which is given here so that the line has to be wrapped somewhere"},
    {"json", 'j', OPT_FLAG, .offset = offsetof(struct values, json), .help = "Answer in JSON"},
    {"paint", 0, OPT_FLAG, .offset = offsetof(struct values, paint), .def = "yes", .help = "No colors"},
    {0},
};
static const struct opt common[] = {
    {"ram", 0, OPT_SIZE, .arg = "SIZE", .offset = offsetof(struct shared, ram), .def = "1GiB", .help = "Memory"},
    {"kv", 0, OPT_CHOICE, .arg = "TYPE", .offset = offsetof(struct shared, kv), .choices = kinds, .def = "f16", .help = "Cache"},
    {0},
};
static const struct opt_group groups[] = {{"Options", own, 0}, {"Model", common, offsetof(struct values, shared)}, {0}};
static const struct opt_example examples[] = {{"prog run -m x.gguf", "Runs it."}, {0}};
static const struct opt_command command = {.name = "run",
                                           .summary = "run it",
                                           .synopsis = "-m FILE [OPTION]… [ARG]",
                                           .description = "Runs a model.\n\nSecond paragraph.",
                                           .groups = groups,
                                           .max_args = 1,
                                           .examples = examples};

static struct values v;
static struct opts_parsed parsed;
static struct err err;

/* Splits at '|', parses, returns opts_parse's result. */
static int parse(const char *words)
{
    static char text[512];
    char run[] = "run", *argv[32] = {run};
    int argc = 1;

    opts_fini(&command, &v, &parsed);
    v = (struct values){0};
    err_clear(&err);
    snprintf(text, sizeof text, "%s", words);
    for (char *s = text; *s; argc++) {
        argv[argc] = s;
        s += strcspn(s, "|");
        if (*s)
            *s++ = '\0';
    }
    return opts_parse(&command, argc, argv, &v, &parsed, &err);
}

static void refuses(const char *words, const char *want)
{
    is_int(parse(words), -1, "refused: %s", words);
    has_str(err.text, want, "with the reason");
    is_int(err.kind, ERR_USAGE, "as wrong usage");
}

static void test_forms(void)
{
    is_int(parse("-m|x"), 0, "least");
    ok(v.n == 128 && v.temp == 0.8 && v.shared.ram == 1 << 30 && v.paint && !v.json, "defaults");
    is_str(v.shared.kv, "f16", "of a choice");
    ok(opts_given(&parsed, "model") && !opts_given(&parsed, "temp"), "what was given is known");
    is_int(parse("-mx|-n5|-p|one|--prompt=two|--prompt|three|-pfour|--temp=0|-j|arg"), 0, "all forms");
    ok(v.n == 5 && v.temp == 0 && v.json && v.prompts.len == 4 && parsed.n_args == 1, "arrive");
    is_str(v.prompts.items[1], "two", "in order");
    is_str(v.prompts.items[3], "four", "the last too");
    is_int(parse("-jn|7|-m|x|--no-paint|--seed|18446744073709551615"), 0, "letters together");
    ok(v.json && v.n == 7 && !v.paint && v.seed == UINT64_MAX, "arrive");
    is_int(parse("--json|--no-json|--model=x|--prompt=|--count=-1"), 0, "off again, an empty text, a negative number");
    ok(!v.json && v.prompts.len == 1 && *v.prompts.items[0] == 0 && v.n == -1, "arrive");
    is_int(parse("-m|x|-n|5|-n|6|--|-z"), 0, "the last one wins; -- ends options");
    ok(v.n == 6 && parsed.n_args == 1 && strcmp(parsed.args[0], "-z") == 0, "so it is");
    is_int(parse("-m|x|-"), 0, "a dash alone is an argument");
    is_int(parse("--nonsense-after|--help"), -1, "an error before --help");
    is_int(parse("--help|--nonsense"), 0, "--help before an error");
    ok(parsed.help, "is noticed");
    is_int(parse("-h"), 0, "-h, though -m is missing");
    is_int(parse("-m|x|--kv|q8_0|--ram=1.5MiB"), 0, "the shared group");
    ok(v.shared.ram == 1572864 && v.shared.kv == kinds[2], "its base counts");
}

static void test_errors(void)
{
    refuses("--model=", "--model: \"\" is given where FILE is expected");
    refuses("", "-m FILE (--model) is missing");
    refuses("-m", "--model needs a value: FILE");
    refuses("-m|x|a|b", "unexpected argument \"b\"");
    refuses("-m|x|--tmep|1", "unknown option --tmep; did you mean --temp?");
    refuses("-m|x|--promt=1", "did you mean --prompt?");
    refuses("-m|x|--pant", "did you mean --paint?");
    refuses("-m|x|--xyzzyx", "unknown option --xyzzyx");
    ok(!strstr(err.text, "mean"), "nothing near, nothing suggested");
    refuses("-m|x|--no-temp", "unknown option --no-temp");
    refuses("-m|x|-z", "unknown option -z");
    refuses("-m|x|-\x01", "unknown option -?");
    refuses("-m|x|-n|5x", "--count: \"5x\" is not a whole number");
    refuses("-m|x|-n|1001", "--count: 1001 is out of range; -1 to 1000 is allowed");
    refuses("-m|x|-n|99999999999999999999", "out of range");
    refuses("-m|x|-n|", "needs a value");
    refuses("-m|x|--temp|hot", "--temp: \"hot\" is not a number");
    refuses("-m|x|--temp|nan", "not a number");
    refuses("-m|x|--temp|100.5", "--temp: 100.5 is out of range; 0 to 100 is allowed");
    refuses("-m|x|--seed|-1", "--seed: \"-1\" is not a whole number from 0");
    refuses("-m|x|--kv|f8", "--kv: \"f8\" is unknown; f16, f32 or q8_0 is allowed");
    refuses("-m|x|--ram|8Gib", "--ram: \"8Gib\" is not a size; a size such as 8GiB");
    refuses("-m|x|--json=1", "--json takes no value");
    refuses("-m|x|--no-json=1", "--no-json takes no value");
    refuses("-m|x|--a-very-long-name-that-no-option-has-and-none-ever-will", "unknown option --a-very-long");
    is_int(opts_set(&command, "temp", "0.25", &v, &err), 0, "opts_set");
    ok(v.temp == 0.25, "sets");
    is_int(opts_set(&command, "tmp", "0.25", &v, &err), -1, "and refuses");
    has_str(err.text, "did you mean --temp?", "likewise");
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},          {"4096", 4096},        {"1B", 1}, {"8GiB", (uint64_t)8 << 30}, {"512MB", 512000000},
                {"1.5 KiB", 1536}, {"2TB", 2000000000000}};
    static const char *const bad[] = {"", "GiB", "-1", "1XB", "nan", "inf", " 1", "1e400", "99999999TiB", "1GiBs"};
    uint64_t n = 0;

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ok(opts_size(good[i].text, &n, &err) == 0 && n == good[i].bytes, "%s", good[i].text);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        is_int(opts_size(bad[i], &n, &err), -1, "\"%s\" is refused", bad[i]);
}

static int longest_line(const char *s)
{
    int longest = 0, n = 0;
    for (; *s; s++) {
        n = *s == '\n' ? 0 : n + ((*s & 0xC0) != 0x80);
        longest = n > longest ? n : longest;
    }
    return longest;
}

static int count(void *arg, const struct opt_group *group, const struct opt *opt)
{
    (void)group, (void)opt;
    ++*(int *)arg;
    return 0;
}

static void test_help(void)
{
    struct strbuf sb;
    int n = 0;

    strbuf_init(&sb, 1 << 16);
    opts_help(&command, "prog", 80, &sb);
    has_str(strbuf_str(&sb),
            "Usage: prog run -m FILE [OPTION]… [ARG]\n\nRuns a model.\n\nSecond paragraph.\n\nOptions:\n  -m, --model FILE        GGUF",
            "head");
    has_str(strbuf_str(&sb),
            "      --kv TYPE           Cache: f16, f32 or q8_0 (default f16)\n\nEvery command:", "a choice, and --help at the end");
    has_str(strbuf_str(&sb), "      --no-paint          No colors\n", "a flag that is on");
    has_str(strbuf_str(&sb), "Examples:\n  prog run -m x.gguf\n      Runs it.\n\nExit status: 0 done", "examples and exit status");
    ok(longest_line(strbuf_str(&sb)) <= 80, "no line is longer than 80");
    strbuf_clear(&sb);
    opts_help(&command, "prog", 60, &sb);
    ok(longest_line(strbuf_str(&sb)) <= 60, "nor than 60");
    strbuf_fini(&sb);
    is_int(opts_for_each(&command, count, &n), 0, "opts_for_each");
    is_int(n, 13, "sees every option, those of every command too");
}

static void test_nearest(void)
{
    static const char *const names[] = {"run", "eval", "tokenize", "template", "chat"};
    is_str(opts_nearest("rnu", names, 5), "run", "swapped letters");
    is_str(opts_nearest("tok", names, 5), "tokenize", "the beginning");
    is_str(opts_nearest("chatt", names, 5), "chat", "one too many");
    ok(!opts_nearest("plan", names, 5), "nothing near");
    ok(!opts_nearest("", names, 5), "nothing for nothing");
}

static void test_json(void)
{
    const char *text = "{\"n\": 5, \"x\": 1.5, \"s\": \"hi\", \"b\": true, \"a\": [], \"o\": {}, \"z\": null}";
    json_t *j = json_read_text("memory", text, strlen(text), &err), *sub = NULL;
    int64_t n = 0;
    double x = 0;
    bool b = false;
    const char *s = NULL;

    ok(j, "parsed");
    ok(json_get_int(j, "f", "n", JSON_REQUIRED, 0, 9, &n, &err) == 0 && n == 5, "int");
    ok(json_get_number(j, "f", "x", JSON_REQUIRED, 0, 9, &x, &err) == 0 && x == 1.5, "number");
    ok(json_get_text(j, "f", "s", JSON_REQUIRED, &s, &err) == 0 && strcmp(s, "hi") == 0, "string");
    ok(json_get_bool(j, "f", "b", JSON_REQUIRED, &b, &err) == 0 && b, "bool");
    ok(json_get_array(j, "f", "a", JSON_REQUIRED, &sub, &err) == 0 && json_is_array(sub), "array");
    ok(json_get_object(j, "f", "o", JSON_REQUIRED, &sub, &err) == 0 && json_is_object(sub), "object");
    is_int(json_get_int(j, "f", "z", JSON_OPTIONAL, 0, 9, &n, &err), 0, "null is absent");
    is_int(json_get_int(j, "f", "q", JSON_REQUIRED, 0, 9, &n, &err), -1, "absent");
    is_str(err.text, "f: \"q\" is missing; an integer is expected", "is told");
    is_int(json_get_int(j, "f", "n", JSON_REQUIRED, 6, 9, &n, &err), -1, "out of range");
    is_str(err.text, "f: \"n\" is 5; 6 to 9 is allowed", "is told");
    is_int(json_get_text(j, "f", "n", JSON_OPTIONAL, &s, &err), -1, "of another type");
    is_str(err.text, "f: \"n\" is an integer; a string is expected", "is told");
    is_int(json_get_bool(j, "f", "s", JSON_OPTIONAL, &b, &err) + json_get_array(j, "f", "s", JSON_OPTIONAL, &sub, &err) +
               json_get_object(j, "f", "s", JSON_OPTIONAL, &sub, &err) + json_get_number(j, "f", "s", JSON_OPTIONAL, 0, 1, &x, &err),
           -4, "everywhere");
    is_int(json_get_int(NULL, "f", "n", JSON_OPTIONAL, 6, 9, &n, &err), -1, "no object at all");
    json_decref(j);
    ok(!json_read_text("memory", "{\"a\":\n 1,}", 10, &err), "bad JSON");
    has_str(err.text, "memory:2:4: ", "with line and column");
    ok(!json_read_file("/nonexistent/x.json", 10, &err), "no file");
    is_int(err.kind, ERR_NOT_FOUND, "is told");
    ok(!json_read_file("/", 10, &err), "a folder");
    ok(!json_read_file("/proc/self/maps", 10, &err), "too long a file");
    ok(!json_read_file("/proc/sys/vm/max_map_count", 3, &err) && err.kind == ERR_LIMIT, "a number that goes on behind the limit");
}

int main(void)
{
    test_forms();
    test_errors();
    test_sizes();
    test_help();
    test_nearest();
    test_json();
    opts_fini(&command, &v, &parsed);
    return tap_done();
}
