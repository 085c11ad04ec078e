/* See hostport.h. */
#include "base/hostport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

bool hostport_split(const char *text, char *host, size_t cap, const char **ret_port)
{
    const char *colon = strrchr(text, ':'), *start = text, *end = colon;

    if (!colon)
        return false;
    if (*start == '[') {
        start++;
        end--;
        if (end < start || *end != ']')
            return false;
    } else if (memchr(start, ':', (size_t)(end - start))) {
        return false;
    }
    if (end == start || (size_t)(end - start) >= cap)
        return false;
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = '\0';
    *ret_port = colon + 1;
    return true;
}

bool hostport_port_valid(const char *port, bool listening)
{
    size_t len = strlen(port);
    long n;

    if (listening && strcmp(port, "*") == 0)
        return true;
    if (len == 0 || len > 5 || strspn(port, "0123456789") != len)
        return false;
    n = strtol(port, NULL, 10);
    return n <= 65535 && (n > 0 || listening);
}

bool hostport_host_valid(const char *host)
{
    size_t len = strlen(host);

    return len > 0 && strspn(host, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:") == len;
}

/* As numbers, since each can be written in many ways: "0", "::0", "0:0:0:0:0:0:0:0". */
bool hostport_is_anywhere(const char *host)
{
    struct in6_addr six;
    struct in_addr four;

    if (strcmp(host, "*") == 0)
        return true;
    if (inet_pton(AF_INET6, host, &six) == 1)
        return IN6_IS_ADDR_UNSPECIFIED(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && !six.s6_addr32[3]);
    return inet_aton(host, &four) && four.s_addr == INADDR_ANY;
}

bool hostport_is_loopback(const char *host)
{
    struct in6_addr six;
    struct in_addr four;

    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET6, host, &six) == 1)
        return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
    return inet_aton(host, &four) && ntohl(four.s_addr) >> 24 == 127;
}

bool hostport_is_ours(const char *host)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    bool is_six = inet_pton(AF_INET6, host, &six.sin6_addr) == 1;

    if (!is_six && inet_pton(AF_INET, host, &four.sin_addr) != 1)
        return false;
    /* Only one's own can be bound; a datagram's socket takes no port from anybody. */
    int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ours = fd >= 0 && bind(fd, is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four, is_six ? sizeof six : sizeof four) == 0;
    if (fd >= 0)
        close(fd);
    return ours;
}

const char *hostport_advice(int errno_value)
{
    switch (errno_value) {
    case EADDRINUSE:
        return "; something listens there already: end it, or choose another port";
    case EADDRNOTAVAIL:
    case ENODEV:
        return "; this machine has no such address: 0.0.0.0 stands for all that it has";
    case EACCES:
        return "; ports below 1024 are root's: choose a higher one";
    default:
        return "";
    }
}
