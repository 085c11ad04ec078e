/* See tls.h. */
#include "front/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { PEM_MAX_BYTES = 1 << 20 };

static char *read_pem(const char *option, const char *path, const char *word, bool secret, struct err *err)
{
    struct stat st;
    char *text = NULL;
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0)
        err_errno(err, errno, "%s %s", option, path);
    else if (secret && S_ISREG(st.st_mode) && (st.st_mode & (S_IRWXO | S_IWGRP)))
        err_set(err, ERR_USAGE, "%s %s: others may read or write it; chmod 600 it", option, path);
    else if (st.st_size > PEM_MAX_BYTES)
        err_set(err, ERR_USAGE, "%s %s has %lld bytes; at most %d are allowed", option, path, (long long)st.st_size, PEM_MAX_BYTES);
    else if ((text = mem_new((size_t)st.st_size + 1, 1, err)) && (n = read(fd, text, (size_t)st.st_size)) < 0)
        err_errno(err, errno, "%s %s", option, path);
    else if (text && !strstr(text, word))
        n = err_set(err, ERR_USAGE, "%s %s holds no \"%s…\": a PEM file is expected", option, path, word);
    if (fd >= 0)
        close(fd);
    if (n < 0) {
        free(text);
        text = NULL;
    }
    return text;
}

int tls_read(struct tls *t, const char *cert_path, const char *key_path, struct err *err)
{
    *t = (struct tls){0};
    if (!cert_path && !key_path)
        return 0;
    if (!cert_path || !key_path)
        return err_set(err, ERR_USAGE, "--tls-cert and --tls-key belong together; %s is missing", cert_path ? "--tls-key" : "--tls-cert");
    if (!(t->cert = read_pem("--tls-cert", cert_path, "-----BEGIN CERTIFICATE", false, err)) ||
        !(t->key = read_pem("--tls-key", key_path, "PRIVATE KEY-----", true, err))) {
        tls_fini(t);
        return -1;
    }
    return 0;
}

void tls_fini(struct tls *t)
{
    if (t->key)
        sodium_memzero(t->key, strlen(t->key));
    free(t->cert);
    free(t->key);
    *t = (struct tls){0};
}
