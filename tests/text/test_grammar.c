/* Grammars as their users see them: what is refused and how it is said, masks against brute force, ends, what is shared by walks,
 * limits, forms of calls. test_grammar_reference.py holds what they accept against naive matchers. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"
#include "tests/text/grammar_vocab.h"
#include "text/gram_walk.h"

static struct grammar_vocab vocab;
static struct grammar_tokens *tokens;
static struct err err;

static struct grammar_masks *masks_of(struct grammar *g)
{
    struct grammar_masks *m = g ? grammar_masks_create(g, tokens, &err) : NULL;
    grammar_drop(g);
    return m;
}

static struct grammar_masks *gbnf(const char *text)
{
    return masks_of(grammar_from_gbnf(text, strlen(text), &err));
}

static struct grammar_masks *schema(const char *text)
{
    json_t *s = json_loads(text, JSON_DECODE_ANY, NULL);
    struct grammar_masks *m = masks_of(grammar_from_schema(s, "s", &err));
    if (!s)
        tap_note("no JSON: %s", text);
    json_decref(s);
    return m;
}

/* 'c' complete, 'o' open, 'd' dead. */
static char runs(struct grammar_masks *m, const char *text)
{
    struct grammar_walk *w = m ? grammar_walk_create(m, &err) : NULL;
    char got = '?';
    if (w)
        got = grammar_walk_take_bytes(w, text, strlen(text), &err) != 0 ? 'd' : grammar_walk_complete(w) ? 'c' : 'o';
    grammar_walk_destroy(w);
    return got;
}

static void is_run(const char *grammar, const char *text, char want)
{
    struct grammar_masks *m = gbnf(grammar);
    char got[2] = {runs(m, text)}, wanted[2] = {want};
    is_str(got, wanted, "%s: %s", grammar, text);
    grammar_masks_drop(m);
}

static void refused_gbnf(const char *text, const char *want)
{
    struct grammar *g = grammar_from_gbnf(text, strlen(text), &err);
    ok(!g, "refused: %.60s", text);
    if (!g)
        has_str(err.text, want, "and says so");
    grammar_drop(g);
}

static void refused_schema(const char *text, const char *want)
{
    json_t *s = json_loads(text, JSON_DECODE_ANY, NULL);
    struct grammar *g = grammar_from_schema(s, "f.schema", &err);
    ok(s && !g, "refused: %.90s", text);
    if (!g)
        has_str(err.text, want, "and says so");
    grammar_drop(g);
    json_decref(s);
}

static void test_gbnf(void)
{
    is_run("root ::= \"a\\x41\\u00e9\\U0001F600\\n\\\"\" # comment\n", "aAé😀\n\"", 'c');
    is_run("root ::= [^a-c\\]]+ \"]\"", "xyz]", 'c');
    is_run("root ::= [a\\-z]{3}", "a-z", 'c');
    is_run("root ::= .", "é", 'c');
    is_run("root ::= .", "\xC3", 'o');
    is_run("root ::= .", "\xC3\x28", 'd');
    is_run("root ::= .", "\xED\xA0\x80", 'd'); /* a surrogate */
    is_run("root ::= [^\\x00]", "\xF4\x8F\xBF\xBF", 'c');
    is_run("root ::= [^\\x00]", "\xF4\x90", 'd');
    is_run("root ::= a | b\na ::= \"x\"\n\nb ::=\n  \"y\" (\n \"z\"\n )?", "yz", 'c');
    is_run("root ::= \"a\" |\n  \"b\"\n  | \"c\"", "c", 'c');
    is_run("root ::= \"a\"{2,} \"b\"{0} \"c\"{1,2}", "aaacc", 'c');
    is_run("root ::= \"a\"{2,}", "a", 'o');
    is_run("root ::= \"(\" root \")\" | \"\"", "((()))", 'c');
    is_run("root ::= \"x\" root | \"\"", "xxxxxxxx", 'c');
    is_run("root ::= (\"a\"?)* \"b\"", "aab", 'c');
    is_run("root ::= x* \"b\"\nx ::= y?\ny ::= \"a\"*", "aab", 'c');
    is_run("root ::= [\xC3\xA9-\xC3\xBC\xE4\xB8\x80-\xE9\xBF\xBF]+", "éü中", 'c');
    refused_gbnf("root ::= \"a", "line 1, column 12: \" at the end of the text expected, found the end");
    refused_gbnf("root ::= a\n", "line 1, column 10: there is no rule named a");
    refused_gbnf("x ::= \"a\"\n", "there is no rule named root");
    refused_gbnf("", "there is no rule named root");
    refused_gbnf("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: a second rule of the same name: root");
    refused_gbnf("root ::= (\"a\"\n", ") expected");
    refused_gbnf("root ::= [z-a]", "line 1, column 11: a range from a later character");
    refused_gbnf("root ::= \"é\" ]", "line 1, column 14");
    refused_gbnf("root ::= \"a\"{3,2}", "most is below its least");
    refused_gbnf("root ::= \"a\"{99999}", "more than 65536 repetitions");
    refused_gbnf("root ::= \"\\q\"", "unknown escape");
    refused_gbnf("root ::= \"\\ud800\"", "no such character");
    refused_gbnf("root ::= \"\\U00110000\"", "no such character");
    refused_gbnf("root = \"a\"", "::= behind the rule's name expected");
    refused_gbnf("root ::= root \"a\" | \"b\"", "rule root calls itself before anything else (left recursion)");
    refused_gbnf("root ::= x root | \"a\"\nx ::= \"\"", "left recursion");
    refused_gbnf("root ::= \"a\" root", "no text can match");
    refused_gbnf("root ::= [\xFF]", "no UTF-8");
    char *deep = malloc(4096);
    memcpy(deep, "root ::= ", 9);
    memset(deep + 9, '(', 2000);
    deep[2009] = '\0';
    refused_gbnf(deep, "nested too deep");
    free(deep);
    refused_gbnf("root ::= a{60000}\na ::= b{60000}\nb ::= \"x\"{60000} | \"yyyyyyyyyy\"{60000} | \"zzzz\"{60000} \"zzzz\"{60000}", "more than 524288 parts");
}

static void test_schema_refusals(void)
{
    refused_schema("{\"type\":\"objekt\"}", "f.schema: type: there are null, boolean");
    refused_schema("{\"properties\":{\"a\":{\"not\":{}}}}", "f.schema.properties.a: not is not supported");
    refused_schema("{\"items\":{\"anyOf\":[{},{\"if\":{}}]}}", "f.schema.items.anyOf[1]: if is not supported");
    refused_schema("{\"uniqueItems\":true}", "uniqueItems is not supported");
    refused_schema("{\"properties\":[]}", "properties is an array; an object of schemas is expected");
    refused_schema("{\"minLength\":-1}", "minLength is an integer; a whole number from 0 is expected");
    refused_schema("{\"multipleOf\":0.1}", "multipleOf 0.1: whole numbers up to");
    refused_schema("{\"$ref\":\"#/nowhere\"}", "$ref \"#/nowhere\" leads to no schema");
    refused_schema("{\"$ref\":\"http://x/y\"}", "only places within the schema are known");
    refused_schema("{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"allOf\":[{\"$ref\":\"#/$defs/a\"}],\"type\":\"null\"}}}", "in a circle");
    refused_schema("{\"$ref\":\"#\"}", "no text can match");
    refused_schema("{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "left recursion");
    refused_schema("{\"pattern\":\"a(?=b)\"}", "f.schema: pattern: at byte 2 of the pattern: looking ahead");
    refused_schema("{\"pattern\":\"(a\"}", ") is missing");
    refused_schema("{\"pattern\":\"(a)\\\\1\"}", "references to groups");
    refused_schema("{\"maxLength\":1000000}", "maxLength is above 65536");
    refused_schema("{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", "no text can match");
    refused_schema("{\"type\":\"integer\",\"minimum\":0.2,\"maximum\":0.8}", "no text can match");
    refused_schema("{\"enum\":[1,2],\"type\":\"string\"}", "no text can match");
    refused_schema("{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"b\"],\"additionalProperties\":false}", "no text can match");
    refused_schema("{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "no text can match");
    refused_schema("{\"minProperties\":4,\"properties\":{\"a\":{}},\"additionalProperties\":true}", "at most 2 can be promised");
    refused_schema("{\"properties\":{\"a\":{\"patternProperties\":{\"1\":{},\"2\":{},\"3\":{},\"4\":{},\"5\":{}}}}}", "at most 4 are supported");
    refused_schema("false", "no text can match");
    refused_schema("3", "f.schema: it is an integer");
    refused_schema("{\"pattern\":\"(x+x+)+y{4000}[a-f]{4000}(0|1)*(.{3000})\",\"maxLength\":60000}", "make it simpler");
}

/* Every token of the vocabulary: what the mask says and what taking it does are the same. */
static bool mask_is_right(struct grammar_masks *m, const char *before)
{
    uint8_t bits[256];
    struct grammar_walk *w = grammar_walk_create(m, &err);
    bool right = w && grammar_walk_take_bytes(w, before, strlen(before), &err) == 0 && grammar_walk_mask(w, bits, (vocab.n + 7) / 8, &err) == 0;
    for (uint32_t i = 0; right && i < vocab.n; i++) {
        struct grammar_walk *x = grammar_walk_create(m, &err);
        bool allowed = bits[i / 8] >> i % 8 & 1;
        right = grammar_walk_take_bytes(x, before, strlen(before), &err) == 0 && (grammar_walk_take(x, (int32_t)i, &err) == 0) == allowed;
        if (!right)
            tap_note("token %u after %s: the mask says %d", i, before, allowed);
        grammar_walk_destroy(x);
    }
    right = right && (bits[vocab.eos / 8] >> vocab.eos % 8 & 1) == grammar_walk_complete(w) && !(bits[vocab.control / 8] >> vocab.control % 8 & 1);
    grammar_walk_destroy(w);
    return right;
}

static void test_masks(void)
{
    static const char *const befores[] = {"", "{", "{\"", "{\"a", "{\"a\\", "{\"a\":", "{\"a\": \"", "{\"a\": \"\xC3", "{\"a\": [[1", "{\"a\": [{\"b\": \"x", "{\"a\": [{\"b\": \"\xF0\x9F\x98",
                                          "{\"a\": tr", "{\"a\": [[[\"", "{}", "{\"a\":[[]", "{\"a\":1,", "{\"a\":[{\"b\":{\"c\":[\"d\\u00"};
    struct grammar_masks *m = masks_of(grammar_json_object(&err));
    for (int round = 0; round < 2; round++) /* the second finds all of it remembered */
        for (size_t i = 0; i < sizeof befores / sizeof *befores; i++)
            ok(mask_is_right(m, befores[i]), "the mask after %s lets through what can be taken", befores[i]);
    grammar_masks_drop(m);
    m = schema("{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":2},\"maxItems\":2}");
    ok(mask_is_right(m, "[\"a"), "within a bounded string");
    ok(mask_is_right(m, "[\"ab\",\"a"), "and in the second one, which is the last");
    grammar_masks_drop(m);
    m = gbnf("root ::= (\"a\" | \"ab\" | b)* \"abc\"?\nb ::= \"aaaa\" | \"b\" b | \"\"");
    ok(mask_is_right(m, "") && mask_is_right(m, "aab") && mask_is_right(m, "aaa"), "where a text can be read in many ways");
    grammar_masks_drop(m);
}

static void test_ends(void)
{
    struct grammar_masks *m = gbnf("root ::= \"ab\"");
    struct grammar_walk *w = grammar_walk_create(m, &err);
    uint8_t bits[256];
    ok(grammar_walk_take(w, vocab.eos, &err) != 0, "an end token may not come before the text is complete");
    has_str(err.text, "which is not complete", "and it is said");
    ok(grammar_walk_take(w, vocab.control, &err) != 0, "a control token never");
    ok(grammar_walk_take(w, -1, &err) != 0 && grammar_walk_take(w, (int32_t)vocab.n, &err) != 0, "nor a token that is none");
    ok(grammar_walk_take_bytes(w, "ax", 2, &err) != 0 && grammar_walk_take_bytes(w, "ab", 2, &err) == 0, "what is refused moves nothing");
    ok(grammar_walk_complete(w) && grammar_walk_take(w, vocab.eos, &err) == 0, "now it may come");
    ok(grammar_walk_mask(w, bits, 3, &err) != 0 && err.kind == ERR_INTERNAL, "a mask of another vocabulary's size is refused");
    grammar_walk_destroy(w);
    grammar_masks_drop(m);
}

/* So many states that the pool begins anew, with others in the middle of their texts. */
static void test_tidy(void)
{
    struct grammar_masks *m = schema("{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":\"string\",\"maxLength\":60000}}}");
    struct grammar_walk *other = grammar_walk_create(m, &err), *w = grammar_walk_create(m, &err);
    bool good = grammar_walk_take_bytes(other, "[[\"abc", 6, &err) == 0 && grammar_walk_take_bytes(w, "[[", 2, &err) == 0;
    for (int i = 0; i < 8 && good; i++) {
        good = grammar_walk_take_bytes(w, "\"", 1, &err) == 0;
        for (int k = 0; k < 60000 && good; k++)
            good = grammar_walk_take_bytes(w, &"xy"[k % 2], 1, &err) == 0;
        good = good && grammar_walk_take_bytes(w, "x", 1, &err) != 0 && grammar_walk_take_bytes(w, "\",", 2, &err) == 0;
    }
    ok(good, "a long text under a grammar of many states");
    ok(grammar_walk_take_bytes(other, "d\"]]", 4, &err) == 0 && grammar_walk_complete(other), "another one goes on from where it stood");
    grammar_walk_destroy(other);
    grammar_walk_destroy(w);
    grammar_masks_drop(m);
}

static void test_limits(void)
{
    struct grammar_masks *m = gbnf("root ::= \"(\" root \")\" | \"\"");
    struct grammar_walk *w = grammar_walk_create(m, &err);
    uint8_t bits[256];
    int depth = 0;
    while (depth < 2 * GRAMMAR_MAX_DEPTH && grammar_walk_take_bytes(w, "(", 1, &err) == 0)
        depth++;
    ok(depth >= GRAMMAR_MAX_DEPTH && depth <= GRAMMAR_MAX_DEPTH + 1, "%d deep, and no deeper", depth);
    ok(grammar_walk_mask(w, bits, (vocab.n + 7) / 8, &err) == 0 && !(bits['(' / 8] >> '(' % 8 & 1), "the mask knows that as well");
    grammar_walk_destroy(w);
    grammar_masks_drop(m);

    m = gbnf("root ::= a a a a a a a a a a a a a a\na ::= b | c\nb ::= d \"x\" | d\nc ::= d \"y\" | d \"x\"\nd ::= e \"z\" | e\ne ::= (\"q\" | \"q\" f)* \"q\"?\nf ::= e \"1\" | e \"2\" | f2\nf2 ::= e \"3\"");
    w = m ? grammar_walk_create(m, &err) : NULL;
    int rc = w ? 0 : -1;
    for (int i = 0; i < 400 && rc == 0; i++)
        rc = grammar_walk_take_bytes(w, "q", 1, &err);
    ok(rc != 0 && err.kind == ERR_LIMIT, "a text that can be read in very many ways ends with a limit");
    has_str(err.text, "ambiguous", "and a sentence");
    grammar_walk_destroy(w);
    grammar_masks_drop(m);
}

static void test_calls(void)
{
    json_t *city = json_loads("{\"type\":\"object\",\"properties\":{\"city\":{\"$ref\":\"#/$defs/n\"}},\"required\":[\"city\"],\"$defs\":{\"n\":{\"enum\":[\"Rome\",\"Bonn\"]}}}", 0, NULL);
    struct grammar_part weather[] = {{.text = "<tool_call>\n{\"name\": \"weather\", \"arguments\": "}, {.schema = city, .where = "tools[0]"}, {.text = "}\n</tool_call>"}};
    struct grammar_part any[] = {{.text = "<any>"}, {.text = NULL}};
    struct grammar_form forms[] = {{weather, 3}, {any, 2}};
    struct grammar_masks *m = masks_of(grammar_from_calls(forms, 2, "\n", 2, &err));
#define CALL(city) "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"" city "\"}}\n</tool_call>"
    ok(runs(m, CALL("Rome")) == 'c', "one call");
    ok(runs(m, CALL("Rome") "\n<any>{\"x\": [1]}") == 'c', "two, of which one is of any form");
    ok(runs(m, CALL("Rome") "\n" CALL("Bonn") "\n") == 'd', "not three");
    ok(runs(m, CALL("Paris")) == 'd', "not what the schema does not know");
    grammar_masks_drop(m);
    json_decref(city);
    m = masks_of(grammar_from_regex("a|bc+", 5, &err));
    ok(runs(m, "bcc") == 'c' && runs(m, "a") == 'c' && runs(m, "ab") == 'd', "a pattern from end to end");
    grammar_masks_drop(m);
}

int main(void)
{
    grammar_vocab_init(&vocab);
    tokens = grammar_tokens_create(vocab.tokenizer, vocab.n, &err);
    test_gbnf();
    test_schema_refusals();
    test_masks();
    test_ends();
    test_tidy();
    test_limits();
    test_calls();
    grammar_tokens_drop(tokens);
    grammar_vocab_fini(&vocab);
    return tap_done();
}
