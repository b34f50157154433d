// Preloaded into User-Mode Linux 6.1, which sets a process's floating-point registers by ptrace in an area of a size
// that it was compiled with. The host's kernel takes an area only if it has the whole size of its own CPU's: 11 kB
// where there is AMX, four times as much. So the area is filled up here. What is filled up stands for registers that
// the area's header, which is in the part that UML knows, calls unused.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

static long (*host)(int, long, void *, void *);
static size_t whole;         // bytes of the host's area, 0: not known yet
static char area[1 << 16];   // whole bytes of it; beyond what UML knows they stay zero
static long known;           // the process whose registers are in shown, 0: none
static char shown[1 << 14];  // as UML read them last, and as they still are

__attribute__((constructor)) static void find(void) { host = (long (*)(int, long, void *, void *))dlsym(RTLD_NEXT, "ptrace"); }

static long set(long pid, struct iovec *given)
{
	if (known == pid && !memcmp(shown, given->iov_base, given->iov_len))
		return 0; // most system calls leave them alone
	if (!whole) {
		static char probe[sizeof area];
		struct iovec all = {probe, sizeof probe};
		if (host(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &all) < 0)
			return -1;
		whole = all.iov_len;
	}
	known = 0;
	if (given->iov_len >= whole)
		return host(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, given);
	memcpy(area, given->iov_base, given->iov_len);
	struct iovec full = {area, whole};
	return host(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &full);
}

static long get(long pid, struct iovec *wanted)
{
	long failed = host(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, wanted);
	known = 0;
	if (failed < 0 || wanted->iov_len > sizeof shown)
		return failed;
	memcpy(shown, wanted->iov_base, wanted->iov_len);
	known = pid;
	return failed;
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	long pid = va_arg(rest, int);
	void *address = va_arg(rest, void *), *data = va_arg(rest, void *);
	va_end(rest);
	if (address == (void *)NT_X86_XSTATE && request == PTRACE_SETREGSET)
		return set(pid, data);
	if (address == (void *)NT_X86_XSTATE && request == PTRACE_GETREGSET)
		return get(pid, data);
	switch ((int)request) {
	case PTRACE_GETREGS: case PTRACE_SETREGS: case PTRACE_PEEKUSER: case PTRACE_POKEUSER:
		break; // leave the floating-point registers as they are
	default:
		known = 0; // it may run
	}
	return host(request, pid, address, data);
}
