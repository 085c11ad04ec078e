#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

/* What `doctor` looks at. Every check says one thing about this machine or the cluster: that it is well, or what to do. None changes
 * anything. */

#include <jansson.h>
#include <stdbool.h>

enum doctor_verdict { DOCTOR_PASS, DOCTOR_WARN, DOCTOR_FAIL };
extern const char *const doctor_verdicts[]; /* "pass", "warn", "fail" */

struct doctor {
    const char *keys, *model_dir, *topology;         /* NULL: the usual ones; topology: none */
    json_t *checks;                                   /* [{"check", "verdict", "text", "do"}] */
    unsigned n[3];                                    /* by verdict */
    void (*show)(enum doctor_verdict verdict, const char *check, const char *text, const char *what_to_do);
};

/* what_to_do: NULL where it is well. fmt: what was found. */
void doctor_note(struct doctor *d, const char *check, enum doctor_verdict verdict, const char *what_to_do, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

bool doctor_is_wsl(void);
void doctor_machine(struct doctor *d); /* processor, memory, disk, kernel, limits, GPU, clock */
void doctor_cluster(struct doctor *d); /* keys, settings, addresses, ports, links, the nodes of a topology or of a running server */

#endif
