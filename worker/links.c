/* The stages' data links, two of each that is not beside another one of this process: getting them up, taking steps in, passing steps on, credit both ways.
 *
 * Credit: a stage tells the one before it how many step frames it has taken off its queue, and how many frames and bytes may be
 * under way beyond those. Whoever sends keeps to that; only the coordinator, which bounds its steps itself and takes results as
 * they come, neither needs nor gives any. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "worker/node_state.h"

static bool is_coordinator(const struct neighbour *b)
{
    return b->who.stage == MSG_STAGE_COORDINATOR;
}

static const char *name_of(const struct neighbour *b, char buf[MSG_MAX_NAME + 32])
{
    if (is_coordinator(b))
        return "the coordinator";
    snprintf(buf, MSG_MAX_NAME + 32, "node %s (stage %u)", b->node, b->who.stage);
    return buf;
}

/* A stage of this process. */
static bool is_here(const struct neighbour *b)
{
    return b->who.reach == REACH_PROCESS;
}

static void fault(struct seat *s, const struct neighbour *b, enum err_kind kind, const char *what)
{
    char who[MSG_MAX_NAME + 32], text[MSG_MAX_TEXT + 1];
    snprintf(text, sizeof text, "the link to %s: %s", name_of(b, who), what);
    log_line(LOG_WARN, "%s", text);
    control_error(s, kind, text);
}

/* --- getting them up ---------------------------------------------------------------------------------------------------- */

/* The coordinator does not always know by which address it is reached: where we dialed it, that one counts; where it says
 * that it listens everywhere, the host that its link to us comes from. */
void links_coordinator_address(const struct node *n, const char *said, char ret[MSG_MAX_ADDRESS + 1])
{
    if (control_address(n) && n->control && wire_link_dialed(n->control))
        snprintf(ret, MSG_MAX_ADDRESS + 1, "%s", control_address(n));
    else if (n->control)
        wire_address_seen(said, n->control, ret);
    else
        snprintf(ret, MSG_MAX_ADDRESS + 1, "%s", said);
}

static void say_refused(const char *address, const char *text)
{
    log_line(LOG_WARN, "%s was refused: %s", address, text);
}

void links_refused(struct node *n, const struct wire_event *e)
{
    if (n->n_refused == NODE_REFUSED) {
        say_refused(e->address, e->text);
        return;
    }
    snprintf(n->refused[n->n_refused].text, sizeof n->refused[0].text, "%s", e->text);
    snprintf(n->refused[n->n_refused].address, sizeof n->refused[0].address, "%s", e->address);
    n->refused[n->n_refused++].since_ms = n->now_ms;
}

/* Those that are due; with a key: its own are forgotten instead. */
static void settle_refused(struct node *n, const uint8_t *key)
{
    char digits[KEY_TEXT] = "";
    unsigned kept = 0;
    if (key)
        key_format(key, digits);
    for (unsigned i = 0; i < n->n_refused; i++) {
        if (key ? strstr(n->refused[i].text, digits) != NULL : n->now_ms - n->refused[i].since_ms >= NODE_REFUSED_MS) {
            if (!key)
                say_refused(n->refused[i].address, n->refused[i].text);
            continue;
        }
        n->refused[kept++] = n->refused[i];
    }
    n->n_refused = kept;
}

/* Neighbours and those who load the same model need not be ones that our owner has named: the coordinator vouches for them,
 * for as long as this configuration lasts. */
static void admit(struct node *n, const char *name, const uint8_t *key, unsigned purposes)
{
    struct err err;
    if (!key || n->n_admitted == NODE_ADMITTED || (n->control && strcmp(name, wire_link_node(n->control)) == 0))
        return;
    for (unsigned i = 0; i < n->n_admitted; i++)
        if (strcmp(n->admitted[i], name) == 0)
            return;
    if (wire_net_grant(n->net, name, key, purposes, &err) != 0) {
        log_line(LOG_WARN, "node %s cannot be admitted: %s", name, err.text);
        return;
    }
    snprintf(n->admitted[n->n_admitted++], sizeof n->admitted[0], "%s", name);
    settle_refused(n, key);
}

static bool is_source(const struct msg_configure *c, const char *name)
{
    for (size_t i = 0; i < c->n_sources; i++)
        if (strcmp(c->sources[i].node, name) == 0)
            return true;
    return false;
}

static bool is_neighbour(const struct msg_neighbour *b, const char *name)
{
    return b->reach != REACH_RELAY && b->reach != REACH_PROCESS && b->stage != MSG_STAGE_COORDINATOR && strcmp(b->node, name) == 0;
}

void links_admit(struct node *n, const struct msg_configure *c, bool anew)
{
    for (unsigned i = 0; anew && i < n->n_admitted; i++)
        if (!c || (!is_source(c, n->admitted[i]) && !is_neighbour(&c->previous, n->admitted[i]) && !is_neighbour(&c->next, n->admitted[i])))
            wire_net_revoke(n->net, n->admitted[i]);
    n->n_admitted = anew ? 0 : n->n_admitted;
    if (!c)
        return;
    for (int i = 0; i < 2; i++) {
        const struct msg_neighbour *b = i == 0 ? &c->previous : &c->next;
        if (is_neighbour(b, b->node)) /* of a relayed one only the coordinator is met, whose key is there */
            admit(n, b->node, b->key, 1u << LINK_DATA | (is_source(c, b->node) ? 1u << LINK_BULK : 0));
    }
    for (size_t i = 0; i < c->n_sources; i++)
        admit(n, c->sources[i].node, c->sources[i].key, 1u << LINK_BULK);
}

static void set_neighbour(struct seat *s, struct neighbour *b, const struct msg_neighbour *from)
{
    struct node *n = s->node;

    *b = (struct neighbour){.who = *from, .has_key = from->key != NULL, .writable = true};
    snprintf(b->node, sizeof b->node, "%s", from->node);
    if (is_coordinator(b) || from->reach == REACH_RELAY)
        links_coordinator_address(n, from->address, b->address);
    else
        snprintf(b->address, sizeof b->address, "%s", from->address);
    if (from->key)
        memcpy(b->key, from->key, sizeof b->key);
    b->up_until_ms = UINT64_MAX; /* until the stage is ready: the neighbour may be slower to hear of it */
    if (from->reach == REACH_DIAL || from->reach == REACH_RELAY)
        b->dial_at_ms = n->now_ms;
}

static bool fits(const struct neighbour *b, const struct wire_link *link, bool upstream)
{
    const struct msg_link_hello *h = wire_link_hello(link);
    const uint8_t *key = wire_link_key(link);
    if (h->upstream != upstream || h->stage != b->who.stage)
        return false;
    /* By key where there is one: our owner may trust it by another name than the coordinator has for it. */
    return key && b->has_key ? memcmp(key, b->key, sizeof b->key) == 0 : strcmp(wire_link_node(link), b->node) == 0;
}

static void send_credit(struct seat *s)
{
    struct msg m = {.type = MSG_CREDIT, .credit = {.epoch = s->node->epoch, .taken = s->told_taken + 1, .free_bytes = s->window_bytes,
                                                   .free_frames = s->window_frames}};
    if (!is_coordinator(&s->previous) && s->previous.link)
        wire_send_msg(s->previous.link, &m, NULL, 0, NULL, NULL, NULL);
}

static void take(struct seat *s, struct neighbour *b, struct wire_link *link)
{
    b->link = link;
    b->dialing = NULL;
    b->dial_at_ms = 0;
    b->up_until_ms = UINT64_MAX;
    b->writable = true;
    if (b == &s->previous)
        send_credit(s);
    links_pump(s);
}

/* A link that was dialed to us, of this epoch: whose? false: of no stage that is configured yet. */
static bool claim(struct node *n, struct wire_link *link)
{
    bool all = true; /* stages of this epoch that may be here */
    if (!msg_epoch_same(wire_link_hello(link)->epoch, n->epoch))
        return false;
    for (unsigned i = 0; i < n->n_seats; i++) {
        struct seat *s = &n->seats[i];
        if (s->phase == NODE_IDLE) {
            all = false;
        } else if (!s->previous.link && !is_here(&s->previous) && fits(&s->previous, link, false)) {
            take(s, &s->previous, link);
            return true;
        } else if (!s->next.link && !is_here(&s->next) && fits(&s->next, link, true)) {
            take(s, &s->next, link);
            return true;
        }
    }
    if (!all)
        return false; /* it may be one of a stage whose configuration is on its way */
    log_line(LOG_WARN, "node %s wants to be a neighbour, which it is not", wire_link_node(link));
    wire_link_close(link, "this stage has other neighbours");
    return true;
}

/* Its configuration may be on its way to us. */
static void keep_unclaimed(struct node *n, struct wire_link *link)
{
    for (int i = 0; i < NODE_UNCLAIMED_LINKS; i++)
        if (!n->unclaimed[i].link) {
            n->unclaimed[i].link = link;
            n->unclaimed[i].since_ms = n->now_ms;
            return;
        }
    wire_link_close(link, "too many links of epochs that are not known here");
}

/* Whose it is, up or on its way; NULL: nobody's. */
static struct seat *seat_of(struct node *n, const struct wire_link *link, struct neighbour **ret)
{
    for (unsigned i = 0; i < n->n_seats; i++) {
        struct seat *s = &n->seats[i];
        *ret = link == s->previous.link || link == s->previous.dialing ? &s->previous : &s->next;
        if (link == (*ret)->link || link == (*ret)->dialing)
            return s;
    }
    return NULL;
}

void links_up(struct node *n, struct wire_link *link)
{
    struct neighbour *b;
    struct seat *s = wire_link_dialed(link) ? seat_of(n, link, &b) : NULL;
    if (s)
        take(s, b, link);
    else if (!claim(n, link))
        keep_unclaimed(n, link);
}

void links_configure(struct seat *s, const struct msg_configure *c)
{
    struct node *n = s->node;
    set_neighbour(s, &s->previous, &c->previous);
    set_neighbour(s, &s->next, &c->next);
    s->window_frames = c->window_frames;
    s->window_bytes = c->window_bytes;
    s->told_taken = s->told_taken_bytes = s->sent = s->sent_bytes = s->blocked_since_ms = 0;
    memset(&s->credit, 0, sizeof s->credit);
    for (int i = 0; i < NODE_UNCLAIMED_LINKS; i++)
        if (n->unclaimed[i].link && claim(n, n->unclaimed[i].link))
            n->unclaimed[i].link = NULL;
}

static void close_neighbour(struct neighbour *b, const char *why)
{
    wire_link_close(b->link, why);
    wire_link_close(b->dialing, why);
    memset(b, 0, sizeof *b);
}

static void drop_sends(struct fifo *f)
{
    for (; f->n > 0; f->n--, f->first++)
        stage_send_done(f->items[f->first % NODE_SENDS]);
}

void links_close(struct seat *s, const char *why)
{
    close_neighbour(&s->previous, why);
    close_neighbour(&s->next, why);
    drop_sends(&s->data);
    drop_sends(&s->said);
}

static void dial(struct seat *s, struct neighbour *b)
{
    struct node *n = s->node;
    struct err err;
    bool relay = b->who.reach == REACH_RELAY;
    struct wire_dial d = {.endpoint = b->address, .purpose = LINK_DATA, .key = b->has_key ? b->key : NULL, .node = relay ? NULL : b->node,
                          .epoch = n->epoch, .stage = s->stage, .upstream = b == &s->previous, .relay_to = relay ? b->node : NULL};
    b->dial_at_ms = 0;
    if (!(b->dialing = wire_dial(n->wire, &d, &err))) {
        b->up_until_ms = UINT64_MAX;
        fault(s, b, err.kind, err.text);
    }
}

/* --- losing them -------------------------------------------------------------------------------------------------------- */

/* A neighbour, or the coordinator, has closed it on purpose: another plan follows, which is no fault. The coordinator is told all the
 * same: where it knows of no other plan, it makes one. */
static void closed(struct seat *s, const struct neighbour *b, const char *why)
{
    char who[MSG_MAX_NAME + 32], text[MSG_MAX_TEXT + 1];
    if (!s->node->said_over)
        log_line(LOG_INFO, "this epoch is over: %s", why);
    s->node->said_over = true;
    snprintf(text, sizeof text, "the link to %s: %s", name_of(b, who), why);
    control_error(s, ERR_IO, text);
}

static void neighbour_down(struct seat *s, struct neighbour *b, const char *why, bool goodbye)
{
    bool was_up = b->link != NULL;
    b->link = b->dialing = NULL;
    if (!was_up && s->node->now_ms < b->up_until_ms) {
        b->dial_at_ms = s->node->now_ms + NODE_REDIAL_MIN_MS;
        return;
    }
    b->up_until_ms = UINT64_MAX;
    if (goodbye)
        closed(s, b, why);
    else
        fault(s, b, ERR_IO, why);
}

void links_down(struct node *n, struct wire_link *link, const char *why, bool goodbye)
{
    struct neighbour *b;
    struct seat *s = seat_of(n, link, &b);
    if (s)
        neighbour_down(s, b, why, goodbye);
    for (int i = 0; i < NODE_UNCLAIMED_LINKS; i++)
        if (n->unclaimed[i].link == link)
            n->unclaimed[i].link = NULL;
}

/* --- in ----------------------------------------------------------------------------------------------------------------- */

static void take_credit(struct seat *s, struct wire_frame *frame)
{
    struct msg m;
    struct err err;
    if (codec_decode(s->node->codec, frame->type, frame->head, frame->head_len, frame->payload_len, &m, &err) != 0) {
        fault(s, &s->next, err.kind, err.text);
        return;
    }
    if (!msg_epoch_same(m.credit.epoch, s->node->epoch))
        return;
    if (m.credit.taken == 0 || m.credit.taken - 1 > s->sent || m.credit.taken < s->credit.taken) {
        fault(s, &s->next, ERR_INPUT, "credit for frames that were never sent");
        return;
    }
    s->credit = m.credit;
    links_pump(s);
}

static void take_in(struct seat *s, struct neighbour *from, struct wire_frame *frame)
{
    if (!s->thread || s->phase != NODE_RUNNING) {
        fault(s, from, ERR_INPUT, "a step came before the stage was ready");
    } else if (stage_thread_push(s->thread, frame) == 0) {
        return;
    } else {
        fault(s, from, ERR_LIMIT, "more steps came than there was credit for");
    }
    wire_frame_release(frame);
}

void links_frame(struct node *n, struct wire_link *link, struct wire_frame *frame)
{
    struct neighbour *from;
    struct seat *s = seat_of(n, link, &from);
    if (s && frame->type == MSG_STEP && from == &s->previous) {
        take_in(s, from, frame);
        return;
    }
    if (s && frame->type == MSG_MASK && from == &s->next && is_coordinator(from)) {
        take_in(s, from, frame);
        return;
    }
    if (s && frame->type == MSG_CREDIT && from == &s->next)
        take_credit(s, frame);
    else if (s)
        fault(s, from, ERR_INPUT, "a message came that has no business there");
    wire_frame_release(frame);
}

/* --- out ---------------------------------------------------------------------------------------------------------------- */

static void put(struct fifo *f, struct stage_send *s)
{
    f->items[(f->first + f->n++) % NODE_SENDS] = s; /* no more sends exist than it has room for */
}

static struct stage_send *head_of(const struct fifo *f)
{
    return f->n ? f->items[f->first % NODE_SENDS] : NULL;
}

static void pop(struct fifo *f)
{
    f->first++;
    f->n--;
}

static bool has_credit(const struct seat *s, const struct stage_send *x)
{
    uint64_t taken, bytes;
    if (is_coordinator(&s->next))
        return true;
    if (s->credit.taken == 0)
        return false;
    taken = s->credit.taken - 1;
    if (s->sent == taken)
        return true; /* whatever its size: else it could never go */
    bytes = s->sent_bytes - (taken ? s->sent_bytes_at[taken % MSG_MAX_WINDOW] : 0);
    return s->sent - taken < s->credit.free_frames && bytes + x->payload_len <= s->credit.free_bytes;
}

static enum wire_sent send_one(struct wire_link *link, struct stage_send *s, struct err *err)
{
    enum wire_sent sent;
    if (s->payload_len)
        return wire_send(link, s->type, s->head, s->head_len, s->payload, s->payload_len, stage_send_free, s, err);
    sent = wire_send(link, s->type, s->head, s->head_len, NULL, 0, NULL, NULL, err);
    if (sent == WIRE_SENT)
        stage_send_done(s);
    return sent;
}

/* One frame to the next stage; false: not now. */
static bool pass_on(struct seat *s, struct stage_send *x)
{
    struct err err;
    size_t bytes = x->payload_len;
    if (!s->next.link || !s->next.writable)
        return false;
    if (!has_credit(s, x)) {
        s->blocked_since_ms = s->blocked_since_ms ? s->blocked_since_ms : s->node->now_ms;
        return false;
    }
    s->blocked_since_ms = 0;
    switch (send_one(s->next.link, x, &err)) {
    case WIRE_SENT:
        s->sent++;
        s->sent_bytes += bytes;
        s->sent_bytes_at[s->sent % MSG_MAX_WINDOW] = s->sent_bytes;
        return true;
    case WIRE_BLOCKED: s->next.writable = false; return false;
    case WIRE_FAILED: break;
    }
    stage_send_done(x);
    fault(s, &s->next, err.kind, err.text);
    return true;
}

static bool tell(struct node *n, struct stage_send *x)
{
    if (n->control && !n->control_writable)
        return false;
    enum wire_sent sent = n->control ? send_one(n->control, x, NULL) : WIRE_FAILED;
    n->control_writable = sent != WIRE_BLOCKED;
    if (sent == WIRE_FAILED)
        stage_send_done(x); /* nobody is there to be told */
    return sent != WIRE_BLOCKED;
}

/* Tells the stage before what was taken, now and then: an eighth of the window is often enough. */
static void give_credit(struct seat *s)
{
    uint64_t frames, bytes;
    stage_thread_taken(s->thread, &frames, &bytes);
    if (frames == s->told_taken)
        return;
    if (frames - s->told_taken < s->window_frames / 8 && bytes - s->told_taken_bytes < s->window_bytes / 8 && !stage_thread_idle(s->thread))
        return;
    s->told_taken = frames;
    s->told_taken_bytes = bytes;
    send_credit(s);
}

void links_pump(struct seat *s)
{
    struct stage_send *x;
    while (s->thread && (x = stage_thread_next(s->thread)))
        put(x->control ? &s->said : &s->data, x);
    while ((x = head_of(&s->data)) && pass_on(s, x))
        pop(&s->data);
    while ((x = head_of(&s->said)) && tell(s->node, x))
        pop(&s->said);
    if (s->thread)
        give_credit(s);
}

void links_pump_all(struct node *n)
{
    for (unsigned i = 0; i < n->n_seats; i++)
        links_pump(&n->seats[i]);
}

void links_writable(struct node *n, struct wire_link *link)
{
    struct neighbour *b;
    struct seat *s = seat_of(n, link, &b);
    if (s && b == &s->next)
        b->writable = true;
    links_pump_all(n);
}

/* --- time --------------------------------------------------------------------------------------------------------------- */

static void tick_neighbour(struct seat *s, struct neighbour *b)
{
    uint64_t now_ms = s->node->now_ms;
    if (b->dial_at_ms && now_ms >= b->dial_at_ms)
        dial(s, b);
    if (!b->link && !b->dialing && !is_coordinator(b) && now_ms > b->up_until_ms) {
        b->up_until_ms = UINT64_MAX;
        fault(s, b, ERR_IO, "it did not come up");
    }
}

void links_ready(struct seat *s)
{
    if (!is_here(&s->previous))
        s->previous.up_until_ms = s->node->now_ms + NODE_LINK_MS;
    if (!is_here(&s->next))
        s->next.up_until_ms = s->node->now_ms + NODE_LINK_MS;
}

static void tick_seat(struct seat *s)
{
    char text[96];
    if (s->phase == NODE_LOADING || s->phase == NODE_RUNNING) {
        tick_neighbour(s, &s->previous);
        tick_neighbour(s, &s->next);
    }
    if (s->blocked_since_ms && s->node->now_ms - s->blocked_since_ms > NODE_CREDIT_MS) {
        snprintf(text, sizeof text, "no credit for %d s: it takes no more steps", NODE_CREDIT_MS / 1000);
        s->blocked_since_ms = 0;
        fault(s, &s->next, ERR_LIMIT, text);
    }
}

void links_tick(struct node *n)
{
    settle_refused(n, NULL);
    for (unsigned i = 0; i < n->n_seats; i++)
        tick_seat(&n->seats[i]);
    for (int i = 0; i < NODE_UNCLAIMED_LINKS; i++)
        if (n->unclaimed[i].link && n->now_ms - n->unclaimed[i].since_ms > NODE_UNCLAIMED_MS) {
            wire_link_close(n->unclaimed[i].link, "no configuration of this epoch came");
            n->unclaimed[i].link = NULL;
        }
}
