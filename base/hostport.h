#ifndef BASE_HOSTPORT_H
#define BASE_HOSTPORT_H

/* "HOST:PORT" as people write it, "[IPv6]:PORT" included: only its form, nothing is looked up. For addresses of nodes, in files and
 * options, and what to say when one cannot be listened at. */

#include <stdbool.h>
#include <stddef.h>

/* Cuts it in two; false: it has no such form, or the host has cap or more bytes. */
bool hostport_split(const char *text, char *host, size_t cap, const char **ret_port);
/* 1 to 65535; to listen at also 0 and "*": any that is free. */
bool hostport_port_valid(const char *port, bool listening);
/* Whether somebody else can dial it: letters, digits, . - _ and, in an IPv6 address, colons. So "*" is none. */
bool hostport_host_valid(const char *host);
/* "0.0.0.0", "::", "*": every address of a machine. Good to listen at; whoever dials it reaches himself. */
bool hostport_is_anywhere(const char *host);
/* Whether only the machine itself can dial it: "localhost", 127.…, "::1". */
bool hostport_is_loopback(const char *host);
/* Whether a numeric address is one of this machine's. A host's name is not looked up: false. */
bool hostport_is_ours(const char *host);

/* Behind the message that listening failed with that errno: "; what to do", or "". */
const char *hostport_advice(int errno_value);

#endif
