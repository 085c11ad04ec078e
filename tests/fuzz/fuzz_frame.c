/* proto/: whatever a peer sends as a message, or a person as an invitation, is refused or is within every limit: what was
 * taken can be sent again, and comes back the same.
 *
 * Input: a byte for the kind of message (0xFE: an invitation's text, 0xFF: a frame's prefix), four for the payload's length,
 * then the encoded message. */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"
#include "proto/invite.h"
#include "proto/wire_int.h"
#include "tests/proto/samples.h"

enum { CODEC_BYTES = 8 << 20, ENCODED_MAX = 16 << 20, INPUT_PREFIX = 5, KIND_INVITE = 0xFE, KIND_PREFIX = 0xFF };

static void must(int cond)
{
    if (!cond)
        abort();
}

static struct codec *codecs[2];
static uint8_t *encoded[2];

static void set_up(void)
{
    for (size_t i = 0; i < 2 && !codecs[i]; i++) {
        codecs[i] = codec_create(CODEC_BYTES, NULL);
        encoded[i] = malloc(ENCODED_MAX);
        must(codecs[i] && encoded[i]);
    }
}

static void check_message(enum msg_type type, size_t payload_len, const uint8_t *data, size_t size)
{
    struct msg m, again;
    struct err err = {0};
    size_t len, len2;

    if (codec_decode(codecs[0], type, data, size, payload_len, &m, &err) != 0) {
        must(err.kind == ERR_INPUT || err.kind == ERR_LIMIT);
        must(err.text[0] != '\0');
        return;
    }
    must(m.type == type && codec_payload_bytes(&m) == payload_len);
    if (codec_encode(codecs[0], &m, encoded[0], ENCODED_MAX, &len, &err) != 0) {
        must(err.kind == ERR_LIMIT); /* decoding filled the memory that encoding needs as well */
        return;
    }
    if (codec_decode(codecs[1], type, encoded[0], len, payload_len, &again, &err) != 0) {
        must(err.kind == ERR_LIMIT);
        return;
    }
    if (codec_encode(codecs[1], &again, encoded[1], ENCODED_MAX, &len2, &err) == 0)
        must(len == len2 && memcmp(encoded[0], encoded[1], len) == 0);
}

static void check_invite(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    struct invite in;

    must(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    if (invite_parse(text, 0, &in, NULL) == 0)
        must(in.n_addresses > 0 && in.n_addresses <= INVITE_MAX_ADDRESSES);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame_prefix p;

    set_up();
    if (size < INPUT_PREFIX)
        return 0;
    uint32_t payload_len = data[1] | (uint32_t)data[2] << 8 | (uint32_t)data[3] << 16 | (uint32_t)data[4] << 24;
    if (data[0] == KIND_INVITE)
        check_invite(data + INPUT_PREFIX, size - INPUT_PREFIX);
    else if (data[0] == KIND_PREFIX && frame_prefix_get(data + INPUT_PREFIX, size - INPUT_PREFIX, &p))
        must(size - INPUT_PREFIX >= FRAME_PREFIX && (p.has_payload || p.payload_len == 0));
    else
        check_message((enum msg_type)data[0], payload_len, data + INPUT_PREFIX, size - INPUT_PREFIX);
    return 0;
}

static size_t seed(uint8_t *buf, uint8_t kind, size_t payload_len, size_t len)
{
    buf[0] = kind;
    for (int i = 0; i < 4; i++)
        buf[1 + i] = (uint8_t)(payload_len >> (8 * i));
    return INPUT_PREFIX + len;
}

size_t fuzz_corpus(size_t index, uint8_t *buf, size_t cap)
{
    static const char invitation[] = "AQAAAAAAAAAAAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAB";
    const struct msg *m = sample_msg(index);
    size_t len = 0, n = 0;

    set_up();
    if (cap < 4096)
        return 0;
    if (m) {
        must(codec_encode(codecs[0], m, buf + INPUT_PREFIX, cap - INPUT_PREFIX, &len, NULL) == 0);
        return seed(buf, (uint8_t)m->type, codec_payload_bytes(m), len);
    }
    while (sample_msg(n))
        n++;
    if (index == n) {
        memcpy(buf + INPUT_PREFIX, invitation, sizeof invitation - 1);
        return seed(buf, KIND_INVITE, 0, sizeof invitation - 1);
    }
    if (index == n + 1) {
        frame_prefix_put(buf + INPUT_PREFIX, MSG_STEP, 4096, true, 7);
        return seed(buf, KIND_PREFIX, 0, FRAME_PREFIX);
    }
    return 0;
}
