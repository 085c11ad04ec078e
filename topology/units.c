/* Quantities with units, as topology files and probes have them. Numbers are read by hand: strtod would follow the locale. */
#include "topology/topology.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct unit {
    const char *name;
    double value;
};

/* Each list from large to small, the ones to write with first. */
static const struct unit bytes_units[] = {{"TiB", 0x1p40}, {"GiB", 0x1p30}, {"MiB", 0x1p20}, {"KiB", 0x1p10}, {"B", 1},
                                          {"TB", 1e12},    {"GB", 1e9},     {"MB", 1e6},     {"KB", 1e3},     {"kB", 1e3}, {NULL, 0}};
static const struct unit rate_units[] = {{"TB/s", 1e12}, {"GB/s", 1e9}, {"MB/s", 1e6}, {"KB/s", 1e3}, {"B/s", 1},
                                         {"kB/s", 1e3}, {"GiB/s", 0x1p30}, {"MiB/s", 0x1p20}, {"KiB/s", 0x1p10},
                                         {"Tbit/s", 1.25e11}, {"Gbit/s", 1.25e8}, {"Mbit/s", 1.25e5}, {"kbit/s", 125}, {"bit/s", 0.125},
                                         {NULL, 0}};
static const struct unit ops_units[] = {{"POP/s", 1e15}, {"TOP/s", 1e12}, {"GOP/s", 1e9}, {"MOP/s", 1e6}, {NULL, 0}};
static const struct unit time_units[] = {{"s", 1e6}, {"ms", 1e3}, {"us", 1}, {"\xc2\xb5s", 1}, {"ns", 1e-3}, {NULL, 0}};
static const struct unit watt_units[] = {{"kW", 1e3}, {"W", 1}, {NULL, 0}};

static const struct {
    const struct unit *units;
    const char *words;
    size_t n_written; /* how many of the list to write with */
    double max;
} kinds[] = {
    [TOPOLOGY_BYTES] = {bytes_units, "a size such as 16GiB or 512MB", 5, 0x1p53},
    [TOPOLOGY_RATE] = {rate_units, "a rate such as 40GB/s or 2.5Gbit/s", 5, 1e16},
    [TOPOLOGY_OPS] = {ops_units, "operations a second such as 900GOP/s or 70TOP/s", 4, 1e18},
    [TOPOLOGY_TIME_US] = {time_units, "a time such as 0.3ms or 50us", 3, 1e9},
    [TOPOLOGY_WATTS] = {watt_units, "a power such as 350W", 2, 1e7},
};

static const double LEAST = 1e-9; /* of any unit that has no prefix, but 0: what is written can be read again */

/* Digits with at most one point; how many bytes of text they take, 0 if there is no number. */
static size_t number(const char *text, size_t len, double *ret)
{
    size_t i = 0, digits = 0;
    double value = 0, scale = 1;
    bool point = false;
    for (; i < len; i++) {
        if (text[i] == '.' && !point) {
            point = true;
        } else if (text[i] >= '0' && text[i] <= '9') {
            value = value * 10 + (text[i] - '0');
            scale = point ? scale * 10 : scale;
            digits++;
        } else {
            break;
        }
    }
    *ret = value / scale;
    return digits > 0 && digits < 40 ? i : 0;
}

int topology_quantity(const char *text, size_t len, enum topology_unit unit, double *ret, struct err *err)
{
    char shown[48];
    double value;
    size_t at = number(text, len, &value);
    err_printable(shown, sizeof shown, text, len);
    if (at == 0)
        return err_set(err, ERR_USAGE, "\"%s\" is not %s", shown, kinds[unit].words);
    while (at < len && text[at] == ' ')
        at++;
    for (const struct unit *u = kinds[unit].units; u->name; u++)
        if (strlen(u->name) == len - at && memcmp(u->name, text + at, len - at) == 0) {
            if (value > 0 && value * u->value < LEAST)
                return err_set(err, ERR_USAGE, "\"%s\" is too little to be anything; at least %g%s is allowed, or 0", shown, LEAST / u->value, u->name);
            if (!(value * u->value <= kinds[unit].max))
                return err_set(err, ERR_USAGE, "\"%s\" is too much; at most %g%s is allowed", shown, kinds[unit].max / u->value, u->name);
            *ret = value * u->value;
            return 0;
        }
    if (at == len && (unit == TOPOLOGY_WATTS || value == 0)) {
        *ret = value;
        return 0;
    }
    return err_set(err, ERR_USAGE, "\"%s\" %s; %s is expected", shown, at == len ? "has no unit" : "has an unknown unit", kinds[unit].words);
}

void topology_quantity_text(struct strbuf *out, enum topology_unit unit, double value)
{
    const struct unit *u = kinds[unit].units;
    size_t i = 0;
    if (unit == TOPOLOGY_BYTES) { /* exactly, in the largest unit that divides it */
        while (i + 1 < kinds[unit].n_written && (value < u[i].value || fmod(value, u[i].value) != 0))
            i++;
        strbuf_printf(out, "%.0f%s", value / u[i].value, u[i].name);
        return;
    }
    while (i + 1 < kinds[unit].n_written && value < u[i].value)
        i++;
    topology_number_text(out, value / u[i].value);
    strbuf_puts(out, u[i].name);
}

void topology_number_text(struct strbuf *out, double value)
{
    char text[64];
    int n = snprintf(text, sizeof text, "%.6g", value);
    if (strchr(text, 'e')) { /* as nobody writes it by hand */
        n = snprintf(text, sizeof text, "%.15f", value);
        while (n > 1 && text[n - 1] == '0' && text[n - 2] != '.')
            n--;
    }
    strbuf_add(out, text, (size_t)n);
}
