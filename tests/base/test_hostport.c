#include "base/hostport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/tap.h"

int main(void)
{
    static const char *const bad[] = {"", "host", ":1", "[::1]", "[]:1", "fe80::1:7", "[::1:7", "0123456789abcdef:1"};
    char host[16];
    const char *port;

    ok(hostport_split("tower:7100", host, sizeof host, &port) && !strcmp(host, "tower") && !strcmp(port, "7100"), "a name");
    ok(hostport_split("[::1]:7", host, sizeof host, &port) && !strcmp(host, "::1") && !strcmp(port, "7"), "IPv6 in brackets");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ok(!hostport_split(bad[i], host, sizeof host, &port), "refused: \"%s\"", bad[i]);
    ok(hostport_port_valid("1", false) && hostport_port_valid("65535", false), "the first and the last port");
    ok(!hostport_port_valid("0", false) && hostport_port_valid("0", true) && hostport_port_valid("*", true), "any port only to listen at");
    ok(!hostport_port_valid("65536", true) && !hostport_port_valid("7x", true) && !hostport_port_valid("", true) &&
           !hostport_port_valid("-1", true) && !hostport_port_valid("*", false),
       "no ports");
    ok(hostport_host_valid("pc-2.lan") && hostport_host_valid("::1") && !hostport_host_valid("*") && !hostport_host_valid("a b"), "hosts");
    static const char *const anywhere[] = {"0.0.0.0", "0", "::", "::0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "*"};
    static const char *const loopback[] = {"127.0.0.1", "127.1", "127.255.0.3", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost"};
    static const char *const neither[] = {"10.0.0.7", "128.0.0.1", "0.0.0.1", "::2", "::ffff:10.0.0.7", "tower", "localhost.lan", ""};
    for (size_t i = 0; i < sizeof anywhere / sizeof *anywhere; i++)
        ok(hostport_is_anywhere(anywhere[i]) && !hostport_is_loopback(anywhere[i]), "every address of a machine: %s", anywhere[i]);
    for (size_t i = 0; i < sizeof loopback / sizeof *loopback; i++)
        ok(hostport_is_loopback(loopback[i]) && !hostport_is_anywhere(loopback[i]), "the machine itself: %s", loopback[i]);
    for (size_t i = 0; i < sizeof neither / sizeof *neither; i++)
        ok(!hostport_is_loopback(neither[i]) && !hostport_is_anywhere(neither[i]), "one that others can dial: \"%s\"", neither[i]);
    ok(hostport_is_ours("127.0.0.1") && !hostport_is_ours("192.0.2.77") && !hostport_is_ours("2001:db8::77") &&
           !hostport_is_ours("localhost"),
       "this machine's own addresses");
    ok(strstr(hostport_advice(EADDRINUSE), "another port") && strstr(hostport_advice(EADDRNOTAVAIL), "0.0.0.0") && !*hostport_advice(EPIPE),
       "advice");
    return tap_done();
}
