/* The reader: a machine that goes from byte to byte, so that where pieces are cut changes nothing. See dialect.h. */
#include "text/dialect_read.h"

#include <ctype.h>
#include <string.h>

#include "text/dialect_marks.h"

enum { WHITE_MAX_BYTES = 256, HEADER_MAX_BYTES = 256, OUT_BYTES = 4096, BUFFER_BYTES = 8 << 20 };

static const char *const list_of_args[] = {"[ARGS]", "[CALL_ID]"};
static const char *const section_marks[] = {DEEPSEEK_CALL, DEEPSEEK_END};
static const char *const message_marks[] = {"<|end|>", "<|return|>", "<|call|>", "<|start|>", "<|channel|>"};
#define MESSAGE "<|message|>"

static bool is_white(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool is_name(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.' || c == ':';
}

/* --- telling ------------------------------------------------------------- */

static void flush(struct dialect_reader *r)
{
    if (r->out.len > 0)
        r->tell(r->arg, r->out_part, r->out.data, r->out.len);
    strbuf_clear(&r->out);
}

void dialect_put(struct dialect_reader *r, enum dialect_part part, const char *s, size_t len)
{
    bool grows = part == DIALECT_CONTENT || part == DIALECT_THOUGHT || part == DIALECT_ARGUMENTS;

    if (part != r->out_part || !grows || r->out.len >= OUT_BYTES)
        flush(r);
    r->out_part = part;
    if (!grows)
        r->tell(r->arg, part, s, len);
    else if (len >= OUT_BYTES && r->out.len == 0)
        r->tell(r->arg, part, s, len);
    else
        strbuf_add(&r->out, s, len);
}

static void put_white(struct dialect_reader *r, enum dialect_part part)
{
    if (r->white.len > 0)
        dialect_put(r, part, r->white.data, r->white.len);
    strbuf_clear(&r->white);
}

/* --- marks --------------------------------------------------------------- */

enum match { MATCH_NONE, MATCH_PART, MATCH_WHOLE };

static enum match match_mark(const struct strbuf *held, const char *mark)
{
    size_t len = strlen(mark);

    if (held->len > len || memcmp(held->data, mark, held->len) != 0)
        return MATCH_NONE;
    return held->len == len ? MATCH_WHOLE : MATCH_PART;
}

/* The best of several but `not`; *ret is which. */
static enum match match_marks(const struct strbuf *held, const char *const *marks, size_t n, const char *not, const char **ret)
{
    enum match best = MATCH_NONE;

    for (size_t i = 0; i < n; i++) {
        enum match m = marks[i] == not ? MATCH_NONE : match_mark(held, marks[i]);
        if (m > best) {
            best = m;
            *ret = marks[i];
        }
    }
    return best;
}

static void drop_first(struct strbuf *s)
{
    memmove(s->data, s->data + 1, s->len); /* with the 0 behind it */
    s->len--;
}

/* --- text and thoughts --------------------------------------------------- */

static void enter(struct dialect_reader *r, enum reader_state state)
{
    strbuf_clear(&r->held);
    strbuf_clear(&r->raw);
    r->state = (int)state;
}

/* Behind a call, a thought, a header: white space belongs to nobody. */
static void enter_text(struct dialect_reader *r, bool fresh)
{
    enter(r, READ_TEXT);
    strbuf_clear(&r->white);
    r->skip_white = true;
    r->fresh = fresh;
}

/* What was taken for a call is content. */
static void give_back(struct dialect_reader *r)
{
    if (r->told)
        dialect_put(r, DIALECT_BROKEN, "", 0);
    if (r->raw.len > 0)
        dialect_put(r, DIALECT_CONTENT, r->raw.data, r->raw.len);
    r->told = false;
    enter(r, READ_TEXT);
    r->skip_white = false;
    r->fresh = false;
}

static void begin_object(struct dialect_reader *r, bool is_arguments)
{
    dialect_call_begin(r);
    r->is_arguments = is_arguments;
    r->state = READ_OBJECT;
}

/* One byte that belongs to no mark. */
static void put_byte(struct dialect_reader *r, char c)
{
    enum dialect_part part = r->state == READ_THOUGHT ? DIALECT_THOUGHT : DIALECT_CONTENT;

    if (is_white(c)) {
        if (!r->skip_white)
            strbuf_putc(&r->white, c);
        if (r->white.len >= WHITE_MAX_BYTES)
            put_white(r, part);
        return;
    }
    if (c == '{' && r->fresh && r->tools && r->dialect.calls->bare && part == DIALECT_CONTENT) {
        r->is_bare = true;
        r->in_list = false;
        strbuf_clear(&r->raw);
        strbuf_add(&r->raw, strbuf_str(&r->white), r->white.len);
        strbuf_clear(&r->white);
        begin_object(r, false);
        dialect_call_byte(r, c);
        return;
    }
    put_white(r, part);
    dialect_put(r, part, &c, 1);
    r->fresh = r->skip_white = false;
}

static bool is_one_of(const char *mark, const char *const *marks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(mark, marks[i]) == 0)
            return true;
    return false;
}

static void header_begin(struct dialect_reader *r, const char *mark)
{
    enter(r, READ_HEADER);
    if (strcmp(mark, "<|channel|>") == 0 || strcmp(mark, "<|start|>") == 0)
        strbuf_puts(&r->raw, mark);
}

static void take_mark(struct dialect_reader *r, const char *mark)
{
    const struct dialect_thoughts *t = r->dialect.thoughts;
    const struct dialect_calls *c = r->dialect.calls;

    if (c->channels && is_one_of(mark, message_marks, sizeof message_marks / sizeof *message_marks)) {
        header_begin(r, mark);
    } else if (t && strcmp(mark, t->open) == 0) {
        strbuf_clear(&r->white);
        enter(r, READ_THOUGHT);
        r->skip_white = true;
    } else if (t && (strcmp(mark, t->close) == 0 || is_one_of(mark, t->skip, t->skip[0] ? 2 : 0))) {
        enter_text(r, true);
    } else {
        strbuf_clear(&r->raw);
        strbuf_add(&r->raw, strbuf_str(&r->white), r->white.len);
        strbuf_puts(&r->raw, mark);
        strbuf_clear(&r->white);
        strbuf_clear(&r->held);
        r->is_bare = r->in_list = r->told = false;
        r->state = c->sections ? READ_SECTION : READ_OPENED;
    }
}

static bool text_byte(struct dialect_reader *r, char c)
{
    bool thought = r->state == READ_THOUGHT;
    const char *const *marks = thought ? r->thought_marks : r->text_marks;
    size_t n = thought ? r->n_thought_marks : r->n_text_marks;
    const char *mark = NULL;

    strbuf_putc(&r->held, c);
    while (r->held.len > 0 && !r->held.failed) {
        /* Thoughts stand at the beginning; later their mark is but a word. */
        const char *not = r->fresh || !r->dialect.thoughts ? NULL : r->dialect.thoughts->open;
        enum match m = match_marks(&r->held, marks, n, not, &mark);
        if (m == MATCH_WHOLE)
            take_mark(r, mark);
        if (m != MATCH_NONE)
            return true;
        char first = r->held.data[0];
        drop_first(&r->held);
        put_byte(r, first); /* a '{' that begins a call is no part of a mark: it is the last byte here */
    }
    return true;
}

/* --- calls --------------------------------------------------------------- */

static void after_call(struct dialect_reader *r)
{
    r->told = false;
    strbuf_clear(&r->raw);
    if (r->dialect.calls->sections)
        enter(r, READ_SECTION_END);
    else if (r->dialect.calls->channels)
        enter_text(r, true); /* up to the message's end */
    else if (r->in_list)
        enter(r, READ_LIST_NEXT);
    else if (r->is_bare)
        enter(r, READ_BARE_NEXT);
    else
        enter(r, READ_CLOSE);
}

static bool object_byte(struct dialect_reader *r, char c)
{
    int rc = dialect_call_byte(r, c);

    if (rc > 0)
        after_call(r);
    else if (rc < 0)
        give_back(r);
    return rc >= 0;
}

/* What comes behind an opening mark. false: no call; the byte is text. */
static bool opened_byte(struct dialect_reader *r, char c)
{
    const struct dialect_calls *calls = r->dialect.calls;

    if (c == '{') {
        begin_object(r, false);
        return object_byte(r, c);
    }
    if (c == '[' && !r->in_list) {
        r->in_list = true;
        r->state = READ_LIST;
    } else if (calls->named && is_name(c)) {
        dialect_call_begin(r);
        r->name[0] = c;
        r->name_len = 1;
        r->state = READ_NAME;
    } else if (c == '<' && calls->close) {
        r->told = false;
        r->state = READ_TAGS;
    } else if (!is_white(c)) {
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    return true;
}

static bool list_byte(struct dialect_reader *r, char c)
{
    if (c == '{') {
        begin_object(r, false);
        return object_byte(r, c);
    }
    if (c == ']') {
        enter(r, READ_CLOSE);
        return true;
    }
    if (!is_white(c)) {
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    return true;
}

static bool list_next_byte(struct dialect_reader *r, char c)
{
    if (c == ',')
        enter(r, READ_LIST);
    else if (c == ']')
        enter(r, READ_CLOSE);
    else if (!is_white(c)) {
        enter_text(r, false);
        return false;
    }
    return true;
}

static bool feed(struct dialect_reader *r, char c);

/* Nothing was matched: all that was held is text. */
static bool held_is_text(struct dialect_reader *r)
{
    char held[DIALECT_MARK_BYTES];
    size_t n = r->held.len < sizeof held ? r->held.len : sizeof held;

    memcpy(held, strbuf_str(&r->held), n);
    enter_text(r, false);
    for (size_t i = 0; i < n; i++)
        feed(r, held[i]);
    return true;
}

/* The closing mark, which may be missing. */
static bool close_byte(struct dialect_reader *r, char c)
{
    const char *close = r->dialect.calls->close;

    if (r->held.len == 0 && is_white(c))
        return true;
    if (r->held.len == 0 && c == '{' && close) {
        r->in_list = false;
        begin_object(r, false);
        return object_byte(r, c);
    }
    strbuf_putc(&r->held, c);
    switch (close ? match_mark(&r->held, close) : MATCH_NONE) {
    case MATCH_WHOLE:
        enter_text(r, false);
        return true;
    case MATCH_PART:
        return true;
    default:
        return held_is_text(r);
    }
}

static bool bare_next_byte(struct dialect_reader *r, char c)
{
    if (is_white(c) || c == ';' || c == ',')
        return true;
    if (c == '{') {
        begin_object(r, false);
        return object_byte(r, c);
    }
    enter_text(r, false);
    return false;
}

static bool name_byte(struct dialect_reader *r, char c)
{
    bool over = is_white(r->raw.data[r->raw.len - 1]);

    if (c == '{') {
        begin_object(r, true);
        return object_byte(r, c);
    }
    if (c == '[') {
        strbuf_clear(&r->held);
        strbuf_putc(&r->held, c);
        r->state = READ_NAME_MARK;
    } else if (is_name(c) && !over && r->name_len + 1 < sizeof r->name) {
        r->name[r->name_len++] = c;
    } else if (!is_white(c) || r->raw.len > HEADER_MAX_BYTES) {
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    return true;
}

static bool name_mark_byte(struct dialect_reader *r, char c)
{
    const char *mark = NULL;

    strbuf_putc(&r->held, c);
    switch (match_marks(&r->held, list_of_args, 2, NULL, &mark)) {
    case MATCH_NONE:
        give_back(r);
        return false;
    case MATCH_WHOLE:
        r->state = mark == list_of_args[0] ? READ_ARGUMENTS : READ_CALL_ID;
        break;
    case MATCH_PART:
        break;
    }
    strbuf_putc(&r->raw, c);
    return true;
}

static bool call_id_byte(struct dialect_reader *r, char c)
{
    if (c == '[') {
        strbuf_clear(&r->held);
        strbuf_putc(&r->held, c);
        r->state = READ_NAME_MARK;
    } else if (!is_name(c) || r->raw.len > 2 * HEADER_MAX_BYTES) {
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    return true;
}

/* White space and fences of code before '{'. */
static bool arguments_byte(struct dialect_reader *r, char c)
{
    if (c == '{') {
        begin_object(r, true);
        return object_byte(r, c);
    }
    bool fence = r->dialect.calls->sections && (c == '`' || (c >= 'a' && c <= 'z'));
    if ((!is_white(c) && !fence) || r->raw.len > 4 * HEADER_MAX_BYTES) {
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    return true;
}

static bool ends_with(const struct strbuf *s, const char *word)
{
    size_t n = strlen(word);
    return s->len >= n && memcmp(s->data + s->len - n, word, n) == 0;
}

static bool tags_byte(struct dialect_reader *r, char c)
{
    const char *close = r->dialect.calls->close;

    if (r->raw.len >= DIALECT_CALL_BYTES) {
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    if (c != '>' || !ends_with(&r->raw, close))
        return true;
    if (dialect_read_tags(r))
        enter_text(r, false);
    else
        give_back(r);
    return true;
}

/* --- DeepSeek's sections ------------------------------------------------- */

static bool section_byte(struct dialect_reader *r, char c)
{
    const char *mark = NULL;

    strbuf_putc(&r->raw, c);
    if (r->held.len == 0 && is_white(c))
        return true;
    strbuf_putc(&r->held, c);
    switch (match_marks(&r->held, section_marks, 2, NULL, &mark)) {
    case MATCH_NONE:
        r->told = false;
        give_back(r);
        break;
    case MATCH_WHOLE:
        strbuf_clear(&r->held);
        if (mark == section_marks[1])
            enter_text(r, false);
        else
            r->state = READ_SECTION_HEAD;
        r->name_len = 0;
        break;
    case MATCH_PART:
        break;
    }
    return true;
}

/* "function" SEP NAME newline, or NAME SEP. */
static bool section_head_byte(struct dialect_reader *r, char c)
{
    strbuf_putc(&r->raw, c);
    strbuf_putc(&r->held, c);
    if (ends_with(&r->held, DEEPSEEK_SEP)) {
        size_t len = r->held.len - strlen(DEEPSEEK_SEP);
        bool is_type = len == 8 && memcmp(r->held.data, "function", 8) == 0;
        if (!is_type) {
            memcpy(r->name, r->held.data, len);
            r->name_len = len;
        }
        strbuf_clear(&r->held);
        r->state = is_type ? READ_SECTION_NAME : READ_ARGUMENTS;
    } else if (r->held.len >= sizeof r->name - 1) {
        give_back(r);
    }
    return true;
}

static bool section_name_byte(struct dialect_reader *r, char c)
{
    if (c == '\n' && r->name_len > 0) {
        r->state = READ_ARGUMENTS;
    } else if (is_name(c) && r->name_len + 1 < sizeof r->name) {
        r->name[r->name_len++] = c;
    } else {
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    return true;
}

static bool section_end_byte(struct dialect_reader *r, char c)
{
    if (r->held.len == 0 && (is_white(c) || c == '`'))
        return true;
    strbuf_putc(&r->held, c);
    switch (match_mark(&r->held, DEEPSEEK_CALL_END)) {
    case MATCH_NONE:
        return held_is_text(r);
    case MATCH_WHOLE:
        enter(r, READ_SECTION);
        break;
    case MATCH_PART:
        break;
    }
    return true;
}

/* --- harmony's messages -------------------------------------------------- */

/* The word behind `key` in a header, up to a space or a mark; its length, 0: none. */
static size_t header_word(const struct strbuf *h, const char *key, const char **ret)
{
    const char *at = memmem(h->data, h->len, key, strlen(key));
    const char *end = h->data + h->len;

    if (!at)
        return 0;
    at += strlen(key);
    *ret = at;
    while (at < end && *at != '<' && !is_white(*at))
        at++;
    return (size_t)(at - *ret);
}

static void header_end(struct dialect_reader *r)
{
    const char *to = NULL, *channel = NULL;
    size_t n_to = header_word(&r->raw, "to=functions.", &to), n_channel = header_word(&r->raw, "<|channel|>", &channel);

    if (n_to > 0 && n_to < sizeof r->name && r->tools) {
        memcpy(r->name, to, n_to);
        r->name_len = n_to;
        strbuf_clear(&r->held);
        r->is_bare = r->in_list = r->told = false;
        r->state = READ_ARGUMENTS;
    } else if (n_channel == 8 && memcmp(channel, "analysis", 8) == 0) {
        enter(r, r->tells_thoughts ? READ_THOUGHT : READ_TEXT);
        r->skip_white = true;
    } else {
        enter_text(r, true);
    }
}

static bool header_byte(struct dialect_reader *r, char c)
{
    bool may = r->raw.len > 0 || c == '<' || c == 'a' || c == 't' || is_white(c);

    if (!may || r->raw.len >= HEADER_MAX_BYTES) {
        r->told = false;
        give_back(r);
        return false;
    }
    strbuf_putc(&r->raw, c);
    if (c == '>' && ends_with(&r->raw, MESSAGE))
        header_end(r);
    return true;
}

/* --- the machine --------------------------------------------------------- */

/* false: the state has changed and the byte is still to be read. */
static bool step(struct dialect_reader *r, char c)
{
    switch ((enum reader_state)r->state) {
    case READ_TEXT:
    case READ_THOUGHT:
        return text_byte(r, c);
    case READ_OPENED:
        return opened_byte(r, c);
    case READ_LIST:
        return list_byte(r, c);
    case READ_LIST_NEXT:
        return list_next_byte(r, c);
    case READ_OBJECT:
        return object_byte(r, c);
    case READ_CLOSE:
        return close_byte(r, c);
    case READ_BARE_NEXT:
        return bare_next_byte(r, c);
    case READ_NAME:
        return name_byte(r, c);
    case READ_NAME_MARK:
        return name_mark_byte(r, c);
    case READ_CALL_ID:
        return call_id_byte(r, c);
    case READ_ARGUMENTS:
        return arguments_byte(r, c);
    case READ_TAGS:
        return tags_byte(r, c);
    case READ_SECTION:
        return section_byte(r, c);
    case READ_SECTION_HEAD:
        return section_head_byte(r, c);
    case READ_SECTION_NAME:
        return section_name_byte(r, c);
    case READ_SECTION_END:
        return section_end_byte(r, c);
    case READ_HEADER:
        return header_byte(r, c);
    }
    return true;
}

static bool feed(struct dialect_reader *r, char c)
{
    while (!step(r, c))
        continue; /* a byte that is refused is text, which refuses none */
    return true;
}

static int check(const struct dialect_reader *r, struct err *err)
{
    if (r->held.failed || r->white.failed || r->out.failed || r->raw.failed || r->object.failed)
        return err_set(err, ERR_MEMORY, "out of memory while an answer's calls and thoughts are read");
    return 0;
}

int dialect_read(struct dialect_reader *r, const char *s, size_t len, struct err *err)
{
    if (r->n_text_marks == 0 && r->state == READ_TEXT && !(r->tools && r->dialect.calls->bare)) {
        if (len > 0)
            r->tell(r->arg, DIALECT_CONTENT, s, len);
        return 0;
    }
    for (size_t i = 0; i < len; i++)
        feed(r, s[i]);
    flush(r);
    return check(r, err);
}

int dialect_end(struct dialect_reader *r, struct err *err)
{
    switch ((enum reader_state)r->state) {
    case READ_TEXT:
    case READ_THOUGHT: {
        enum dialect_part part = r->state == READ_THOUGHT ? DIALECT_THOUGHT : DIALECT_CONTENT;
        put_white(r, part);
        if (r->held.len > 0)
            dialect_put(r, part, r->held.data, r->held.len);
        strbuf_clear(&r->held);
        break;
    }
    case READ_OBJECT:
        if (!dialect_call_end(r))
            give_back(r);
        enter(r, READ_TEXT);
        break;
    case READ_CLOSE:
    case READ_LIST_NEXT:
    case READ_BARE_NEXT:
    case READ_SECTION_END:
        break; /* the calls stand; half a closing mark is nothing */
    default:
        give_back(r);
    }
    flush(r);
    return check(r, err);
}

bool dialect_in_thought(const struct dialect_reader *r)
{
    return r->state == READ_THOUGHT;
}

static void choose_marks(struct dialect_reader *r)
{
    const struct dialect_thoughts *t = r->dialect.thoughts;
    const struct dialect_calls *c = r->dialect.calls;

    if (c->channels) {
        r->n_text_marks = r->n_thought_marks = sizeof message_marks / sizeof *message_marks;
        memcpy(r->text_marks, message_marks, sizeof message_marks);
        memcpy(r->thought_marks, message_marks, sizeof message_marks);
        return;
    }
    if (r->tools && c->open)
        r->text_marks[r->n_text_marks++] = c->open;
    if (t && r->tells_thoughts) {
        r->text_marks[r->n_text_marks++] = t->open;
        for (size_t i = 0; i < 2 && t->skip[i]; i++)
            r->text_marks[r->n_text_marks++] = t->skip[i];
        r->thought_marks[r->n_thought_marks++] = t->close;
    }
}

void dialect_reader_init(struct dialect_reader *r, const struct dialect *d, const json_t *tools, bool tells_thoughts, bool thinking,
                         void (*tell)(void *arg, enum dialect_part part, const char *s, size_t len), void *arg)
{
    *r = (struct dialect_reader){.dialect = *d, .tools = tools, .tells_thoughts = tells_thoughts, .tell = tell, .arg = arg};
    strbuf_init(&r->held, BUFFER_BYTES);
    strbuf_init(&r->white, BUFFER_BYTES);
    strbuf_init(&r->out, BUFFER_BYTES);
    strbuf_init(&r->raw, BUFFER_BYTES);
    strbuf_init(&r->object, BUFFER_BYTES);
    choose_marks(r);
    r->fresh = true;
    r->state = d->calls->channels ? READ_HEADER : tells_thoughts && thinking ? READ_THOUGHT : READ_TEXT;
    r->skip_white = r->state == READ_THOUGHT;
}

void dialect_reader_fini(struct dialect_reader *r)
{
    strbuf_fini(&r->held);
    strbuf_fini(&r->white);
    strbuf_fini(&r->out);
    strbuf_fini(&r->raw);
    strbuf_fini(&r->object);
}
