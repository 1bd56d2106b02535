// The numbers of errors as the ESP32's C library (newlib) has them. Below 35 both libraries agree.
// This is included before all else, except in the two files that talk to this machine's C library
// about errors like these (HOST_ERRNO).
#ifndef HOST_ERRNO
#include <errno.h>
#undef EDEADLK
#undef ENOLCK
#undef ENOSYS
#undef ENOTEMPTY
#undef ENAMETOOLONG
#undef ELOOP
#undef EOPNOTSUPP
#undef EPFNOSUPPORT
#undef ECONNRESET
#undef ENOBUFS
#undef EAFNOSUPPORT
#undef EPROTOTYPE
#undef ENOTSOCK
#undef ENOPROTOOPT
#undef ESHUTDOWN
#undef ECONNREFUSED
#undef EADDRINUSE
#undef ECONNABORTED
#undef ENETUNREACH
#undef ENETDOWN
#undef ETIMEDOUT
#undef EHOSTDOWN
#undef EHOSTUNREACH
#undef EINPROGRESS
#undef EALREADY
#undef EDESTADDRREQ
#undef EMSGSIZE
#undef EPROTONOSUPPORT
#undef ESOCKTNOSUPPORT
#undef EADDRNOTAVAIL
#undef ENETRESET
#undef EISCONN
#undef ENOTCONN
#undef ENOTSUP
#undef EOVERFLOW
#undef ECANCELED
#define EDEADLK 45
#define ENOLCK 46
#define ENOSYS 88
#define ENOTEMPTY 90
#define ENAMETOOLONG 91
#define ELOOP 92
#define EOPNOTSUPP 95
#define EPFNOSUPPORT 96
#define ECONNRESET 104
#define ENOBUFS 105
#define EAFNOSUPPORT 106
#define EPROTOTYPE 107
#define ENOTSOCK 108
#define ENOPROTOOPT 109
#define ESHUTDOWN 110
#define ECONNREFUSED 111
#define EADDRINUSE 112
#define ECONNABORTED 113
#define ENETUNREACH 114
#define ENETDOWN 115
#define ETIMEDOUT 116
#define EHOSTDOWN 117
#define EHOSTUNREACH 118
#define EINPROGRESS 119
#define EALREADY 120
#define EDESTADDRREQ 121
#define EMSGSIZE 122
#define EPROTONOSUPPORT 123
#define ESOCKTNOSUPPORT 124
#define EADDRNOTAVAIL 125
#define ENETRESET 126
#define EISCONN 127
#define ENOTCONN 128
#define ENOTSUP 134
#define EOVERFLOW 139
#define ECANCELED 140
#endif
