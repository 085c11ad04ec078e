/* The session's promises to its callers: an error changes nothing, cuts keep what they say, a file that changes while it is
 * read is an error. What the logits are is test_invariance's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/answer.h"
#include "model/session.h"
#include "tests/model/model_build.h"
#include "tests/tap.h"

enum { CTX = 100, ROWS = 16 };

static struct err err;
static char path[512];

static struct session *open_or_die(const struct session_options *o)
{
    struct session *s = session_open(path, o, &err);
    if (s)
        return s;
    printf("Bail out! %s\n", err.text);
    exit(1);
}

/* n rows of a sequence from its end on; the last one's logits to ret (NULL: not wanted). */
static int feed(struct session *s, uint32_t seq, uint32_t n, float *ret)
{
    struct session_row rows[ROWS];
    uint32_t at = session_length(s, seq);
    for (uint32_t i = 0; i < n; i++)
        rows[i] = (struct session_row){.seq = seq, .pos = at + i, .token = (int32_t)((at + i) * 13 % MODEL_VOCAB), .want = ret && i + 1 == n};
    int rc = session_step(s, rows, n, &err);
    if (rc == 0 && ret)
        memcpy(ret, session_logits(s, 0), MODEL_VOCAB * sizeof *ret);
    return rc;
}

static void feed_to(struct session *s, uint32_t seq, uint32_t length)
{
    while (session_length(s, seq) < length) {
        uint32_t left = length - session_length(s, seq);
        if (feed(s, seq, left < ROWS ? left : ROWS, NULL) != 0) {
            printf("Bail out! %s\n", err.text);
            exit(1);
        }
    }
}

/* --- errors change nothing ------------------------------------------------------------------------------------------------ */

static void refused(struct session *s, const struct session_row *rows, uint32_t n, enum err_kind kind, const char *text)
{
    uint32_t a = session_length(s, 0), b = session_length(s, 1);
    err_clear(&err);
    is_int(session_step(s, rows, n, &err), -1, "refused: %s", text);
    has_str(err.text, text, "it says so");
    is_int(err.kind, kind, "of this kind");
    ok(session_length(s, 0) == a && session_length(s, 1) == b, "nothing was added");
}

static void test_errors(void)
{
    struct session_options o = {.threads = 1, .ctx = CTX, .parallel = 2, .batch_rows = ROWS};
    struct session *s = open_or_die(&o), *calm = open_or_die(&o);
    struct session_row many[ROWS + 1] = {{0}};
    float got[MODEL_VOCAB], want[MODEL_VOCAB];
    feed(s, 0, 10, NULL);
    feed(s, 1, 5, NULL);
    for (uint32_t i = 0; i <= ROWS; i++)
        many[i] = (struct session_row){.pos = 10 + i, .token = 1};
    refused(s, many, ROWS + 1, ERR_USAGE, "a step of 17 rows, allowed are 1 to 16");
    refused(s, many, 0, ERR_USAGE, "a step of 0 rows");
    refused(s, (struct session_row[]){{.pos = 11, .token = 1}}, 1, ERR_USAGE, "row 0: position 11 of sequence 0, the next one is 10");
    refused(s, (struct session_row[]){{.pos = 9, .token = 1}}, 1, ERR_USAGE, "position 9 of sequence 0, the next one is 10");
    refused(s, (struct session_row[]){{.pos = 10, .token = 1}, {.pos = 12, .token = 1}}, 2, ERR_USAGE, "row 1: position 12 of sequence 0, the next one is 11");
    refused(s, (struct session_row[]){{.pos = 10, .token = 1}, {.pos = 10, .token = 1}}, 2, ERR_USAGE, "row 1: position 10");
    refused(s, (struct session_row[]){{.pos = 10, .token = 1}, {.seq = 2, .token = 1}}, 2, ERR_USAGE, "row 1: sequence 2, allowed are 0 to 1");
    refused(s, (struct session_row[]){{.seq = 1, .pos = 5, .token = 1}, {.pos = 10, .token = MODEL_VOCAB}}, 2, ERR_USAGE,
            "row 1: token 300, allowed are 0 to 299");
    refused(s, (struct session_row[]){{.pos = 10, .token = -1}}, 1, ERR_USAGE, "row 0: token -1");
    feed(calm, 0, 10, NULL);
    feed(calm, 1, 5, NULL);
    feed(s, 0, 3, got);
    feed(calm, 0, 3, want);
    is_mem(got, want, sizeof got, "the sequence goes on as if none of this had been");

    feed_to(s, 0, CTX - 2);
    struct session_row over[3];
    for (uint32_t i = 0; i < 3; i++)
        over[i] = (struct session_row){.pos = CTX - 2 + i, .token = 1};
    refused(s, over, 3, ERR_LIMIT, "sequence 0 is full: its context has 100 positions");
    is_int(session_step(s, over, 2, &err), 0, "the last two positions are there");
    refused(s, over + 2, 1, ERR_LIMIT, "is full");
    is_int(feed(s, 1, 5, NULL), 0, "the other sequence has room");
    is_int(session_cut(s, 0, 0), 0, "cut to nothing");
    is_int(feed(s, 0, 5, NULL), 0, "it begins anew");
    session_close(s);
    session_close(calm);
}

/* --- cuts ------------------------------------------------------------------------------------------------------------------ */

static void test_cuts(void)
{
    struct session_options o = {.threads = 1, .ctx = CTX, .parallel = 2, .batch_rows = ROWS};
    struct session *s = open_or_die(&o);
    is_int(session_cut(s, 0, 0), 0, "an empty sequence is cut to nothing");
    is_int(session_cut(s, 0, 50), 0, "or to what it has not");
    feed_to(s, 0, 70);
    is_int(session_cut(s, 0, 70), 70, "to its length: all is kept");
    is_int(session_cut(s, 0, 1000), 70, "to more");
    is_int(session_length(s, 0), 70, "nothing happened");
    is_int(session_cut(s, 0, 33), 33, "to less");
    is_int(session_length(s, 0), 33, "that long it is");
    feed_to(s, 1, CTX);
    feed_to(s, 0, CTX);
    is_int(session_length(s, 0), CTX, "blocks that came back suffice for all sequences' whole contexts");
    for (int i = 0; i < 500; i++) {
        session_cut(s, (uint32_t)i % 2, (uint32_t)(i * 37 % CTX));
        if (i % 3 == 0)
            feed_to(s, (uint32_t)i % 2, CTX);
    }
    feed_to(s, 0, CTX);
    feed_to(s, 1, CTX);
    ok(session_length(s, 0) == CTX && session_length(s, 1) == CTX, "after 500 cuts, too");
    session_close(s);
}

/* Sliding layers give blocks back: to the last position and back again, often. */
static void test_windows(void)
{
    struct session_options o = {.threads = 1, .ctx = 1500, .parallel = 2, .batch_rows = ROWS};
    int kept_wrong = 0;
    model_write(model_spec_of("gemma2"), QUANT_F16, path);
    struct session *s = open_or_die(&o);
    feed_to(s, 0, 1500);
    is_int(session_cut(s, 0, 1499), 1499, "a position is taken back");
    is_int(session_cut(s, 0, 480), 480, "some hundred are: the slack holds them");
    feed_to(s, 0, 1500);
    is_int(session_cut(s, 0, 30), 0, "to where the window is gone: all must be computed anew");
    is_int(session_length(s, 0), 0, "nothing is left");
    for (uint32_t i = 0; i < 12; i++) {
        uint32_t to = i * 131 % (1500 - i * 20);
        feed_to(s, i % 2, 1500 - i * 20);
        uint32_t kept = session_cut(s, i % 2, to);
        kept_wrong += kept != to && kept != 0;
        kept_wrong += kept != session_length(s, i % 2);
    }
    is_int(kept_wrong, 0, "a cut keeps what was asked for, or nothing");
    feed_to(s, 0, 1500);
    feed_to(s, 1, 1500);
    ok(true, "there are always enough blocks");
    session_close(s);
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
}

/* --- files ------------------------------------------------------------------------------------------------------------------ */

/* Progress is told while tensors are read: the moment to shrink the file. */
static void shrink(void *arg, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    if (truncate(arg, 1000) != 0)
        perror("truncate");
}

static void count(void *arg, uint64_t done, uint64_t total)
{
    uint64_t *last = arg;
    if (done < last[0] || done > total)
        last[1]++;
    last[0] = done;
    last[2] = total;
}

static long file_bytes(void)
{
    FILE *f = fopen(path, "rb");
    long n = f && fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    if (f)
        fclose(f);
    return n;
}

static void test_files(void)
{
    uint64_t progress[3] = {0};
    struct session_options o = {.threads = 2, .ctx = CTX, .progress = count, .progress_arg = progress};
    struct session *s = open_or_die(&o);
    ok(progress[1] == 0 && progress[0] == progress[2] && progress[2] > 0, "progress rises from 0 to the total");
    ok(session_weight_bytes(s) > 0 && session_kv_bytes(s) > 0 && session_threads(s) == 2 && session_n_vocab(s) == MODEL_VOCAB, "what it is can be asked");
    session_close(s);

    long bytes = file_bytes();
    if (truncate(path, bytes - 1000) != 0)
        perror("truncate");
    ok(session_open(path, &o, &err) == NULL, "a file that was cut is an error");
    has_str(err.text, "truncated", "that says so");

    /* many layers: reading takes several rounds, the file is cut after the first */
    struct model_spec large = *model_spec_of("llama");
    large.layers = 200;
    model_write(&large, QUANT_F16, path);
    o.progress = shrink;
    o.progress_arg = path;
    o.threads = 1;
    s = session_open(path, &o, &err);
    if (s) {
        tap_skip("the file was read in one go: nothing to shrink in between");
    } else {
        has_str(err.text, "it was cut meanwhile", "a file that shrinks while it is read is an error");
    }
    session_close(s);

    ok(session_open("/nowhere/model.gguf", NULL, &err) == NULL && err.kind == ERR_NOT_FOUND, "no file");
    has_str(err.text, "/nowhere/model.gguf", "is named");
    session_close(NULL);
}

/* --- answers ------------------------------------------------------------------------------------------------------------ */

enum { TOP = 3, GIVEN = 2 };

/* Of every row of a step of three sequences: a token, its likeliest, two given ones; by a team, side by side. */
static void test_answers(void)
{
    struct session *s = open_or_die(&(struct session_options){.threads = 3, .ctx = CTX, .parallel = 3, .batch_rows = ROWS});
    struct session *plain = open_or_die(&(struct session_options){.threads = 1, .ctx = CTX, .parallel = 3, .batch_rows = ROWS});
    struct sampler *sampler = sampler_create(MODEL_VOCAB, NULL, &err);
    struct sample_params p = SAMPLE_PARAMS_DEFAULT;
    int32_t given[GIVEN] = {7, 260}, top[ROWS][TOP], want_top[TOP], token;
    float top_logprobs[ROWS][TOP], given_logprobs[ROWS][GIVEN], want_logprobs[TOP], logprob;
    struct session_row rows[ROWS];
    struct answer answers[ROWS];
    uint32_t n = 0, same = 0;
    p.seed = 11;
    for (uint32_t seq = 0; seq < 3; seq++)
        for (uint32_t pos = 0; pos < 5; pos++)
            rows[n++] = (struct session_row){.seq = seq, .pos = pos, .token = (int32_t)((seq * 31 + pos * 7) % MODEL_VOCAB), .want = true};
    for (uint32_t i = 0; i < n; i++)
        answers[i] = (struct answer){.wanted = i, .params = &p, .position = i, .top = TOP, .given = given, .n_given = GIVEN, .top_tokens = top[i],
                                     .top_logprobs = top_logprobs[i], .given_logprobs = given_logprobs[i]};
    is_int(session_answer(s, rows, n, answers, n, &err), 0, "a step with answers");
    session_step(plain, rows, n, &err);
    for (uint32_t i = 0; i < n; i++) {
        const float *logits = session_logits(plain, i);
        sampler_sample(sampler, &p, logits, NULL, 0, 0, i, &token, &logprob, &err);
        bool good = token == answers[i].token && memcmp(&logprob, &answers[i].logprob, sizeof logprob) == 0;
        sampler_top(sampler, logits, TOP, want_top, want_logprobs, &err);
        good = good && answers[i].n_top == TOP && memcmp(want_top, top[i], sizeof want_top) == 0 && memcmp(want_logprobs, top_logprobs[i], sizeof want_logprobs) == 0;
        sampler_given(sampler, logits, given, GIVEN, want_logprobs, &err);
        same += good && memcmp(want_logprobs, given_logprobs[i], GIVEN * sizeof *want_logprobs) == 0;
    }
    is_int(same, n, "they are the sampler's of the same logits");

    uint8_t nothing[(MODEL_VOCAB + 7) / 8] = {0};
    struct sample_params impossible = p;
    impossible.mask = nothing;
    for (uint32_t i = 0; i < 3; i++)
        rows[i] = (struct session_row){.seq = i, .pos = 5, .token = 1, .want = true};
    answers[1].params = answers[2].params = &impossible;
    is_int(session_answer(s, rows, 3, answers, 3, &err), -1, "two rows may become nothing: %s", err.text);
    has_str(err.text, "position 5 of sequence 1", "the first is named");
    is_int(session_length(s, 2), 6, "the rows are there");
    session_cut(s, 0, 5);
    answers[0].top = SAMPLE_MAX_TOP + 1;
    is_int(session_answer(s, rows, 1, answers, 1, &err), -1, "more likeliest tokens than are given: %s", err.text);
    sampler_destroy(sampler);
    session_close(s);
    session_close(plain);
}

int main(void)
{
    snprintf(path, sizeof path, "%s/session.gguf", model_folder());
    model_write(model_spec_of("llama"), QUANT_Q8_0, path);
    test_errors();
    test_cuts();
    test_windows();
    test_answers();
    test_files();
    return tap_done();
}
