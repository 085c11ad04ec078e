/* Pre-tokenizers: how each family of byte-pair vocabularies cuts text into words before merging. One row a way of cutting;
 * its names are what tokenizer.ggml.pre may say, the same that llama.cpp knows, and so are the words they make.
 *
 * A row applies its steps in turn, each within the pieces that the one before left; what a pattern does not match stays a
 * piece of its own. SPLIT_CLASSES patterns see one byte a character (unicode.h) and are built from the sets below; white
 * space is [\t-\r ] there. SPLIT_TEXT patterns see UTF-8 and spell out every set. All run in linear time without a stack:
 * loops are over single characters or possessive, and what could look at one run again and again is fenced. */
#include <string.h>

#include "base/strbuf.h"
#include "text/tok.h"

enum { KNOWN_MAX = 360 };

/* Sets of classes, for use inside []. */
#define N "0-9\\x81"
#define L "A-Za-z\\x82\\x83"
#define L_NOT_HAN "A-Za-z\\x82"
#define UPPER "A-Z\\x82\\x83" /* not a-z: beyond ASCII case is not told apart */
#define LOWER "a-z\\x82\\x83"
#define P "!-#%-*,-/:;?@\\[-\\]_{}\\x85"
#define M "\\x86"
#define S "$+<=>^`|~\\x87"

#define CONTRACTION_LOWER "'(?:[stmd]|re|ve|ll)"
#define CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define WORD "[^\\r\\n" L N "]?[" L "]+"
#define WORD_MARKS "[^\\r\\n" L N "]?[" L M "]+"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

#define GPT2 CONTRACTION_LOWER "| ?[" L "]+| ?[" N "]+| ?[^\\s" L N "]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_TAIL " ?[^\\s" L N "]+[\\r\\n]*|" SPACES
#define LLAMA3 CONTRACTION "|" WORD "|[" N "]{1,3}|" LLAMA3_TAIL
#define QWEN2 CONTRACTION "|" WORD "|[" N "]|" LLAMA3_TAIL
#define TEKKEN_TAIL " ?[^\\s" L N "]+[\\r\\n/]*|" SPACES
#define TEKKEN_UPPER "[^\\r\\n" L N "]?[" UPPER "]*[" LOWER "]+"
#define TEKKEN_ANY "[^\\r\\n" L N "]?[" UPPER "]+[" LOWER "]*"
#define MARKED_UPPER "[^\\r\\n" L N "]?[" UPPER M "]*[" LOWER M "]+"
#define MARKED_ANY "[^\\r\\n" L N "]?[" UPPER M "]+[" LOWER M "]*"
#define MAYBE "(?:" CONTRACTION ")?"
#define DEEPSEEK3_HEAD "[!-/:-@\\[-`{-~][A-Za-z]+|[^\\r\\n" L P S "]?[" L M "]+| ?[" P S "]+"
#define DEEPSEEK3 DEEPSEEK3_HEAD "[\\r\\n]*|" SPACES

/* The same for SPLIT_TEXT: white space, and Chinese, Japanese, Korean as several vocabularies delimit them. */
#define WS "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define HAN_KANA "\\x{3040}-\\x{30FF}\\x{4E00}-\\x{9FA5}"
#define FAR_EAST \
    "[\\x{800}-\\x{167F}\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}" \
    "\\x{3001}-\\x{9FA5}\\x{AC00}-\\x{D7FF}]+"
#define BLOOM \
    " ?[^" WS "(|.,!?)\\x{60C}\\x{6D4}\\x{964}\\x{2026}\\x{3001}\\x{3002}\\x{FF0C}]+"
#define CASED_LETTERS \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}" \
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}" \
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}" \
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}" \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}" \
    "\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}" \
    "\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}" \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}" \
    "\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}" \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}" \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}" \
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}" \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

static const struct pre_row rows[] = {
    {"default", 0,
     {{SPLIT_CLASSES, "[" P "$+<=>^~|]+"}, {SPLIT_CLASSES, GPT2}, {SPLIT_CLASSES, "[" N "]+"}, {SPLIT_CLASSES, "[0-9][0-9][0-9]"}}},
    {"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", PRE_IGNORE_MERGES | PRE_ADD_BOS,
     {{SPLIT_CLASSES, LLAMA3}}},
    {"dbrx smaug-bpe chatglm-bpe", 0, {{SPLIT_CLASSES, LLAMA3}}},
    {"glm4 glm5", PRE_IGNORE_MERGES, {{SPLIT_CLASSES, LLAMA3}}},
    {"jais-2", 0,
     {{SPLIT_CLASSES, CONTRACTION "|" WORD "|[" N "]{1,3}| ?[^\\s" L N "]+[\\r\\n]*|"
                                  /* behind 512 spaces it is known that the run holds no newline */
                                  "(?<![^\\S\\r\\n]{512})\\s*[\\r\\n]+|"
                                  "\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|"
                                  "\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s"}}},
    {"deepseek-llm", 0,
     {{SPLIT_CLASSES, "[\\r\\n]"},
      {SPLIT_TEXT, "[" WS "]?[" CASED_LETTERS "]+"},
      {SPLIT_TEXT, "[" WS "]?[!-/:-~\\x{2018}-\\x{201F}\\x{3001}\\x{3002}\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}]+"},
      {SPLIT_CLASSES, "(?<!\\s)\\s++\\z"},
      {SPLIT_TEXT, FAR_EAST},
      {SPLIT_CLASSES, "[" N "]+"}}},
    {"deepseek-coder", 0,
     {{SPLIT_CLASSES, "[\\r\\n]"},
      {SPLIT_CLASSES, "\\s?[" L "]+"},
      {SPLIT_CLASSES, "\\s?[" P "]+"},
      {SPLIT_TEXT, FAR_EAST},
      {SPLIT_CLASSES, "[" N "]"}}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", 0,
     {{SPLIT_CLASSES, "[" N "]{1,3}"}, {SPLIT_TEXT, "[" HAN_KANA "]+"}, {SPLIT_CLASSES, DEEPSEEK3}}},
    {"spark2_5", 0,
     {{SPLIT_CLASSES, "[" N "]{1,3}"},
      {SPLIT_TEXT, "[" HAN_KANA "]+"},
      {SPLIT_CLASSES, DEEPSEEK3_HEAD "|[\\r\\n]|\\s+(?!\\S)|\\s+"},
      {SPLIT_CLASSES, "[" N "]"}}},
    {"youtu", PRE_IGNORE_MERGES,
     {{SPLIT_TEXT, "[\\x{3131}-\\x{318E}\\x{AC00}-\\x{D7A3}]+|"
                   "[\\x{2014}\\x{2018}\\x{2019}\\x{201C}\\x{201D}\\x{2026}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}"
                   "\\x{FF01}\\x{FF0C}\\x{FF1A}\\x{FF1B}]+|[\\x{3105}-\\x{312F}]+|[" HAN_KANA "]+"},
      {SPLIT_CLASSES, WORD_MARKS MAYBE "|[" N "]|" TEKKEN_TAIL}}},
    {"falcon", 0,
     {{SPLIT_CLASSES, "[" P "$+<=>^~|`]+"}, {SPLIT_CLASSES, GPT2}, {SPLIT_CLASSES, "[0-9][0-9][0-9]"}}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", 0,
     {{SPLIT_CLASSES, "[" N "]"}, {SPLIT_CLASSES, GPT2}}},
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert mpt olmo jais trillion "
     "granite-docling exaone4 jina-v1-en jina-v2-code roberta-bpe",
     0,
     {{SPLIT_CLASSES, GPT2}}},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", 0, {{SPLIT_CLASSES, QWEN2}}},
    {"qwen35", 0,
     {{SPLIT_CLASSES, CONTRACTION "|" WORD_MARKS "|[" N "]| ?[^\\s" L M N "]+[\\r\\n]*|" SPACES}}},
    {"ufakzeka", 0, {{SPLIT_CLASSES, WORD "|[" N "]|" LLAMA3_TAIL}}},
    {"laguna", 0, {{SPLIT_LINES, NULL}, {SPLIT_CLASSES, QWEN2}}},
    {"minicpm5", PRE_IGNORE_MERGES,
     {{SPLIT_CLASSES, "[" N "]{1,3}"}, {SPLIT_CLASSES, CONTRACTION "|" WORD "|[" N "]+|" LLAMA3_TAIL}}},
    {"poro-chat bloom gpt3-finnish", 0, {{SPLIT_TEXT, BLOOM}}},
    {"viking", 0, {{SPLIT_TEXT, BLOOM}, {SPLIT_CLASSES, "[" N "]"}}},
    {"tekken", PRE_IGNORE_MERGES | PRE_ADD_BOS,
     {{SPLIT_CLASSES, TEKKEN_UPPER "|" TEKKEN_ANY "|[" N "]|" TEKKEN_TAIL}}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", 0,
     {{SPLIT_CLASSES, TEKKEN_UPPER MAYBE "|" TEKKEN_ANY MAYBE "|[" N "]{1,3}|" TEKKEN_TAIL}}},
    {"granite-embed-multi-97m", PRE_IGNORE_MERGES,
     {{SPLIT_CLASSES, MARKED_UPPER MAYBE "|" MARKED_ANY MAYBE "|[" N "]{1,3}|" TEKKEN_TAIL}}},
    {"tiny_aya cohere2moe", 0,
     {{SPLIT_DIGITS, NULL}, {SPLIT_CLASSES, WORD_MARKS MAYBE "|[" N "]{1,3}|" TEKKEN_TAIL}}},
    {"chameleon", PRE_ADD_BOS,
     {{SPLIT_CLASSES, "<sentinel:[0-9]+>"},
      {SPLIT_CLASSES, "IMGIMG[A-I]{1,4}Z"},
      {SPLIT_CLASSES, "[\\t\\n]|    |  "},
      {SPLIT_CLASSES, "[" N "]"},
      {SPLIT_CLASSES, "[!-/:-@\\[-`{-~\\x85]"},
      {SPLIT_CLASSES, GPT2}}},
    {"kimi-k2", PRE_NO_MERGES,
     {{SPLIT_CLASSES, "[\\x83\\x84]+|[^\\r\\n" L N "]?[" L_NOT_HAN "]+" MAYBE "|[" N "]{1,3}|" LLAMA3_TAIL}}},
    {"superbpe", 0, {{SPLIT_CLASSES, "[" N "]+"}, {SPLIT_THOUSANDS, NULL}}},
    {"bailingmoe bailingmoe2 llada-moe", 0,
     {{SPLIT_CLASSES, CONTRACTION "|" WORD "|[" N "]| ?[^\\s" L N "]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}}},
    {"seed-coder", 0,
     {{SPLIT_CLASSES, CONTRACTION "|" WORD "|[" N "]| ?[^\\s" L N "\\r\\n]+|" SPACES}}},
    {"afmoe", 0,
     {{SPLIT_DIGITS, NULL},
      {SPLIT_TEXT, "[\\x{E40}-\\x{EFF}\\x{1000}-\\x{109F}\\x{1100}-\\x{11FF}\\x{1780}-\\x{17FF}\\x{2F00}-\\x{2FDF}"
                   "\\x{3040}-\\x{30FF}\\x{3400}-\\x{4DBF}\\x{4E00}-\\x{FAFF}\\x{FF65}-\\x{FF9F}]+"},
      {SPLIT_CLASSES, DEEPSEEK3}}},
    {"exaone-moe", 0,
     {{SPLIT_CLASSES, CONTRACTION "|[^\\r\\n" L N "]?[" L "](?: ?[" L "]++|[" M "]++)*+|[" N "]| ?[^\\s" L N "]+[\\r\\n/]?|"
                                  "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}}},
    {"gemma4 granite-embed-multi-311m", PRE_RAW | PRE_ESCAPE_SPACES | PRE_NEWLINES | PRE_FORCE_BOS, {{SPLIT_LINES, NULL}}},
    {"sarvam-moe", PRE_RAW | PRE_ESCAPE_SPACES, {{SPLIT_LINES, NULL}}},
    {"whitespace", PRE_RAW, {{SPLIT_TEXT, "[^" WS "]+"}}},
};

const struct pre_row *pre_at(size_t i)
{
    return i < sizeof rows / sizeof *rows ? &rows[i] : NULL;
}

static bool has_name(const char *names, const char *name, size_t len)
{
    for (const char *s = names; *s; s += *s == ' ') {
        size_t n = strcspn(s, " ");
        if (n == len && memcmp(s, name, n) == 0)
            return true;
        s += n;
    }
    return false;
}

const struct pre_row *pre_find(const char *name, size_t len, struct err *err)
{
    char shown[64];
    struct strbuf known;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (has_name(rows[i].names, name, len))
            return &rows[i];
    strbuf_init(&known, KNOWN_MAX); /* an error holds only so much: those that do not fit are "and others" */
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !known.failed; i++)
        strbuf_printf(&known, " %s", rows[i].names);
    err_set(err, ERR_UNSUPPORTED, "tokenizer.ggml.pre \"%s\" is not known; known are:%s, and others",
            err_printable(shown, sizeof shown, name, len), strbuf_str(&known));
    strbuf_fini(&known);
    return NULL;
}
