/* The server's life: where it listens, its threads, its end. See front.h. */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/hostport.h"
#include "base/log.h"
#include "base/mem.h"
#include "front/inner.h"

enum { STOP_POLL_MS = 20, STOP_LAST_WORDS_MS = 1000 };

int64_t front_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int front_ready(struct front *f, const char **ret_state, struct err *ret_why)
{
    struct err err;
    int rc = engine_wait_ready(f->engine, 0, &err);

    if (rc == 0)
        atomic_store(&f->was_ready, true);
    if (atomic_load(&f->stopping)) {
        *ret_state = "stopping";
        err_set(ret_why, ERR_BUSY, "the server is stopping");
        return 1;
    }
    if (rc < 0) {
        *ret_state = "failed";
        *ret_why = err;
    } else if (rc > 0) {
        bool before = atomic_load(&f->was_ready);
        *ret_state = before ? "recovering" : "loading";
        err_set(ret_why, ERR_BUSY, before ? "a part of the cluster was lost and is being replaced" : "the model is loading");
    } else {
        *ret_state = "ok";
    }
    return rc;
}

/* --- where it listens ------------------------------------------------------ */

/* "HOST:PORT" or "[HOST]:PORT" in two; host is "" for all addresses. */
static int split_address(const char *listen, char *host, size_t host_size, char *port, size_t port_size, struct err *err)
{
    const char *colon = strrchr(listen, ':');
    const char *from = listen;
    size_t len = colon ? (size_t)(colon - listen) : 0;

    if (colon && len >= 2 && listen[0] == '[' && listen[len - 1] == ']') {
        from++;
        len -= 2;
    }
    if (!colon || !colon[1] || strlen(colon + 1) >= port_size || len >= host_size || strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return err_set(err, ERR_USAGE, "--listen %s: an address and a port are expected, such as 127.0.0.1:8080 or [::1]:8080", listen);
    memcpy(host, from, len);
    host[len] = '\0';
    snprintf(port, port_size, "%s", colon + 1);
    return 0;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24) == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static void write_url(struct front *f)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    char host[64] = "?", port[8] = "?";

    if (getsockname(f->listen_fd, (struct sockaddr *)&a, &len) == 0)
        getnameinfo((struct sockaddr *)&a, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(f->url, sizeof f->url, a.ss_family == AF_INET6 ? "%s://[%s]:%s" : "%s://%s:%s", f->tls.cert ? "https" : "http", host, port);
}

static int listening_failed(int errno_value, const char *listen_text, struct err *err)
{
    struct err why;

    err_errno(&why, errno_value, "listening at %s", listen_text);
    return err_set(err, why.kind, "%s%s", why.text, hostport_advice(errno_value));
}

static int listen_at(struct front *f, const char *listen_text, bool *ret_loopback, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    char host[256], port[8];
    int rc, yes = 1;

    if (split_address(listen_text, host, sizeof host, port, sizeof port, err) != 0)
        return -1;
    if ((rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found)) != 0)
        return err_set(err, ERR_USAGE, "--listen %s: %s", listen_text, gai_strerror(rc));
    *ret_loopback = is_loopback(found->ai_addr);
    f->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (f->listen_fd < 0 || setsockopt(f->listen_fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(f->listen_fd, found->ai_addr, found->ai_addrlen) != 0 || listen(f->listen_fd, SOMAXCONN) != 0)
        rc = listening_failed(errno, listen_text, err);
    freeaddrinfo(found);
    if (rc == 0)
        write_url(f);
    return rc;
}

static int check_options(const struct front *f, bool loopback, struct err *err)
{
    const struct front_options *o = &f->options;

    if (o->no_auth && o->api_key_file)
        return err_set(err, ERR_USAGE, "--no-auth and --api-key-file contradict each other; give one of them");
    if (!loopback && !o->no_auth && !o->api_key_file)
        return err_set(err, ERR_USAGE, "--listen %s can be reached from other machines: give --api-key-file FILE, or say --no-auth",
                       o->listen);
    return 0;
}

__attribute__((format(printf, 2, 0))) static void say(void *cls, const char *fmt, va_list args)
{
    struct front *f = cls;
    char text[sizeof f->last_said];

    vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = '\0';
    if (!f->daemon)
        snprintf(f->last_said, sizeof f->last_said, "%s", text);
    log_line(LOG_DEBUG, "http: %s", text);
}

static int start_http(struct front *f, struct err *err)
{
    const struct front_options *o = &f->options;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | MHD_USE_ITC;
    struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, f->tls.cert}, {MHD_OPTION_HTTPS_MEM_KEY, 0, f->tls.key}, {MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};

    if (f->tls.cert && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return err_set(err, ERR_UNSUPPORTED, "--tls-cert: the libmicrohttpd of this system is built without TLS; put a proxy before the server");
    f->daemon = MHD_start_daemon(flags | (f->tls.cert ? MHD_USE_TLS : 0), 0, NULL, NULL, http_on_request, f, MHD_OPTION_EXTERNAL_LOGGER, say,
                                 f, MHD_OPTION_LISTEN_SOCKET, f->listen_fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)FRONT_THREADS,
                                 MHD_OPTION_NOTIFY_COMPLETED, http_on_completed, f, MHD_OPTION_CONNECTION_LIMIT,
                                 o->connections ? o->connections : (unsigned)FRONT_CONNECTIONS, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
                                 o->connections_per_address ? o->connections_per_address : (unsigned)FRONT_CONNECTIONS_PER_ADDRESS,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)FRONT_CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
                                 (unsigned)FRONT_IDLE_S, MHD_OPTION_ARRAY, f->tls.cert ? tls : none, MHD_OPTION_END);
    if (!f->daemon)
        return err_set(err, f->tls.cert ? ERR_USAGE : ERR_IO, "the HTTP server does not start at %s%s%s%s", o->listen,
                       f->tls.cert ? " with this certificate and key" : "", f->last_said[0] ? ": " : "", f->last_said);
    f->listen_fd = -1; /* the daemon's */
    return 0;
}

static int start_helpers(struct front *f, struct err *err)
{
    if (!(f->jobs = queue_create(FRONT_CONNECTIONS, err)))
        return -1;
    while (f->n_helpers < FRONT_HELPERS) {
        int rc = pthread_create(&f->helpers[f->n_helpers], NULL, http_help, f);
        if (rc != 0)
            return err_errno(err, rc, "starting a thread that reads requests");
        f->n_helpers++;
    }
    return 0;
}

struct front *front_create(const struct front_options *options, struct engine *engine, struct err *err)
{
    struct front *f = mem_new(1, sizeof *f, err);
    bool loopback;

    if (!f)
        return NULL;
    f->options = *options;
    f->engine = engine;
    f->started_s = time(NULL);
    f->listen_fd = f->epoll_fd = f->stop_fd = -1;
    atomic_init(&f->next_serial, 1);
    snprintf(f->model, sizeof f->model, "%s", options->model);
    pthread_mutex_init(&f->lock, NULL);
    if (tls_read(&f->tls, options->tls_cert, options->tls_key, err) != 0 || listen_at(f, options->listen, &loopback, err) != 0 || check_options(f, loopback, err) != 0 ||
        guard_init(&f->guard, options->api_key_file, options->admin_key, loopback, options->hosts, options->n_hosts, options->cors, err) != 0 ||
        page_init(&f->page, err) != 0 || prompt_init(&f->prompt, engine_gguf(engine), err) != 0 ||
        (guides_init(&f->guides, f->prompt.tokenizer, engine_n_vocab(engine)), false) || watch_start(f, err) != 0 || start_helpers(f, err) != 0 ||
        start_http(f, err) != 0) {
        front_destroy(f);
        return NULL;
    }
    return f;
}

const char *front_url(const struct front *f)
{
    return f->url;
}

static void wake_all(struct front *f)
{
    pthread_mutex_lock(&f->lock);
    for (struct call *c = f->calls; c; c = c->next)
        call_wake(c);
    pthread_mutex_unlock(&f->lock);
}

static bool has_calls(struct front *f)
{
    pthread_mutex_lock(&f->lock);
    bool some = f->calls != NULL;
    pthread_mutex_unlock(&f->lock);
    return some;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = STOP_POLL_MS * 1000000L}, NULL);
}

void front_stop(struct front *f, unsigned grace_ms, bool (*hurry)(void))
{
    int64_t until = front_now_ms() + grace_ms;

    if (f->stopped)
        return;
    f->stopped = true;
    atomic_store(&f->stopping, true);
    if (f->daemon) {
        int fd = MHD_quiesce_daemon(f->daemon);
        if (fd >= 0)
            close(fd);
    }
    while (atomic_load(&f->n_jobs) > 0 && front_now_ms() < until && !(hurry && hurry()))
        nap();
    /* From here on nobody waits: what runs is told so. libmicrohttpd does not stop while connections are suspended. */
    atomic_store(&f->hard, true);
    if (f->jobs)
        queue_close(f->jobs);
    for (unsigned i = 0; i < f->n_helpers; i++)
        pthread_join(f->helpers[i], NULL);
    wake_all(f);
    until = front_now_ms() + STOP_LAST_WORDS_MS;
    while (has_calls(f) && front_now_ms() < until)
        nap();
    if (f->daemon)
        MHD_stop_daemon(f->daemon);
    watch_stop(f);
}

void front_destroy(struct front *f)
{
    if (!f)
        return;
    front_stop(f, 0, NULL);
    if (f->listen_fd >= 0)
        close(f->listen_fd);
    queue_destroy(f->jobs);
    guides_fini(&f->guides);
    prompt_fini(&f->prompt);
    guard_fini(&f->guard);
    tls_fini(&f->tls);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
