#ifndef FRONT_TLS_H
#define FRONT_TLS_H

/* The certificate and key of a server that speaks HTTPS. */

#include "base/err.h"

struct tls {
    char *cert, *key; /* PEM; NULL: plain HTTP */
};

/* Both paths or none. Refuses what is no PEM, and a key that others may read. */
int tls_read(struct tls *t, const char *cert_path, const char *key_path, struct err *err);
void tls_fini(struct tls *t); /* wipes the key */

#endif
