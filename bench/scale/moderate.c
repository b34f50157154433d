// Preloaded into User-Mode Linux, whose network device interrupts it for each packet: with a signal, for 4 µs and two looks at epoll, where
// real devices wait a little for more. So this one waits too: a thread looks at the tap device, and interrupts when packets are there, but
// not again within GAP.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define GAP 500000 // ns

static int (*host_fcntl)(int, int, void *), (*host_close)(int);
static int tap = -1; // that the thread looks at
static pid_t kernel; // the guest's: the thread that takes its interrupts
static pthread_t thread;

__attribute__((constructor)) static void find(void)
{
	host_fcntl = (int (*)(int, int, void *))dlsym(RTLD_NEXT, "fcntl64");
	host_close = (int (*)(int))dlsym(RTLD_NEXT, "close");
}

static void *moderate(void *none)
{
	for (struct pollfd packets = {tap, POLLIN, 0};;) {
		if (poll(&packets, 1, -1) < 1)
			continue;
		syscall(SYS_tgkill, getpid(), kernel, SIGIO);
		nanosleep(&(struct timespec){0, GAP}, 0);
	}
	return none;
}

// fcntl64 gives the kernel the tap device without the signals that it asks for.
int fcntl64(int fd, int command, ...)
{
	va_list rest;
	va_start(rest, command);
	void *value = va_arg(rest, void *);
	va_end(rest);
	struct ifreq device;
	if (command != F_SETFL || !((long)value & O_ASYNC) || tap >= 0 || ioctl(fd, TUNGETIFF, &device) < 0)
		return host_fcntl(fd, command, value);
	tap = fd;
	kernel = gettid();
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); // the thread gets none of the guest's signals
	int failed = pthread_create(&thread, 0, moderate, 0);
	pthread_sigmask(SIG_SETMASK, &before, 0);
	if (failed) {
		tap = -1;
		return host_fcntl(fd, command, value);
	}
	return host_fcntl(fd, command, (void *)((long)value & ~(long)O_ASYNC));
}

// close ends the thread first: it would keep the device.
int close(int fd)
{
	if (fd >= 0 && fd == tap) {
		pthread_cancel(thread);
		pthread_join(thread, 0);
		tap = -1;
	}
	return host_close(fd);
}
