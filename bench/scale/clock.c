// Preloaded into User-Mode Linux, whose processes make a system call to read the clock, for 15 µs, where those of other kernels read the CPU's
// counter, for 30 ns; a Go server reads it several times for each request. So the code that the kernel maps into all processes (the vDSO) gets
// a clock here that reads the counter too. It is set by the host's clocks, once, when the guest boots.
//
// Clocks that nobody here reads still are system calls, and files have the guest kernel's time, which may be a second off.
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

// clock_gettime(clock %edi, time %rsi): for CLOCK_REALTIME and CLOCK_MONOTONIC, at + (counter - since) * pace / 2^32 nanoseconds.
extern char ours[], at[], since[], pace[], behind[];
__asm__(".pushsection .rodata\n"
	"ours:	cmp $1, %edi\n"
	"	ja 1f\n"
	"	mov %edi, %ecx\n"
	"	lea at(%rip), %r8\n"
	"	lfence\n"
	"	rdtsc\n"
	"	shl $32, %rdx\n"
	"	or %rdx, %rax\n"
	"	sub since(%rip), %rax\n"
	"	mulq pace(%rip)\n"
	"	shrd $32, %rdx, %rax\n"
	"	add (%r8,%rcx,8), %rax\n"
	"	xor %edx, %edx\n"
	"	mov $1000000000, %ecx\n"
	"	div %rcx\n"
	"	mov %rax, (%rsi)\n"
	"	mov %rdx, 8(%rsi)\n"
	"	xor %eax, %eax\n"
	"	ret\n"
	"1:	mov $228, %eax\n" // clock_gettime
	"	syscall\n"
	"	ret\n"
	"at:	.quad 0, 0\n"
	"since:	.quad 0\n"
	"pace:	.quad 0\n"
	"behind:	.popsection\n");

// reading is one of the counter and of a clock, at the same time.
struct reading {
	uint64_t counter, ns;
};

static struct reading read_clock(clockid_t clock)
{
	struct reading best = {0};
	uint64_t least = UINT64_MAX; // what came between two looks at the counter
	for (int i = 0; i < 100; i++) {
		struct timespec t;
		uint64_t before = __builtin_ia32_rdtsc();
		clock_gettime(clock, &t);
		uint64_t after = __builtin_ia32_rdtsc();
		if (after - before < least) {
			least = after - before;
			best = (struct reading){before + least / 2, t.tv_sec * 1000000000ull + t.tv_nsec};
		}
	}
	return best;
}

// vdso finds the image in the kernel: a shared object in its data.
static char *vdso(char *from, size_t size)
{
	for (char *p = from, *end = from + size; (p = memmem(p, end - p, ELFMAG, SELFMAG)) && end - p >= 4096; p++)
		if (((Elf64_Ehdr *)p)->e_type == ET_DYN && memmem(p, 4096, "__vdso_clock_gettime", 20))
			return p;
	return 0;
}

// replace puts our clock into the image: the code over the section headers, which only linkers read, and a jump to it where the old one was.
static void replace(char *image)
{
	Elf64_Ehdr *head = (Elf64_Ehdr *)image;
	static const char old[] = {0xb8, 228, 0, 0, 0, 0x0f, 0x05, 0xc3}; // mov $228, %eax; syscall; ret
	char *function = memmem(image, head->e_shoff, old, sizeof old);
	size_t size = behind - ours, room = head->e_shnum * sizeof(Elf64_Shdr);
	if (!function || room < size || head->e_shoff + size > 4096)
		return;
	char *new = image + head->e_shoff;
	struct reading first = read_clock(CLOCK_MONOTONIC);
	nanosleep(&(struct timespec){0, 200000000}, 0);
	struct reading last = read_clock(CLOCK_MONOTONIC), real = read_clock(CLOCK_REALTIME);
	uint64_t speed = (uint64_t)(((__uint128_t)(last.ns - first.ns) << 32) / (last.counter - first.counter));
	uint64_t ahead = (uint64_t)(((__uint128_t)(real.counter - last.counter) * speed) >> 32); // of the two last readings
	uint64_t values[] = {real.ns - ahead, last.ns, last.counter, speed};
	memcpy(new, ours, at - ours);
	memcpy(new + (at - ours), values, sizeof values);
	head->e_shnum = head->e_shoff = head->e_shstrndx = 0;
	int32_t distance = new - (function + 5);
	function[0] = 0xe9; // jmp
	memcpy(function + 1, &distance, sizeof distance);
}

static int look(struct dl_phdr_info *program, size_t size, void *none)
{
	for (int i = 0; i < program->dlpi_phnum; i++) {
		const Elf64_Phdr *p = &program->dlpi_phdr[i];
		if (p->p_type != PT_LOAD || !(p->p_flags & PF_W))
			continue;
		char *image = vdso((char *)program->dlpi_addr + p->p_vaddr, p->p_filesz);
		if (image)
			replace(image);
	}
	return 1; // the program itself is the first
}

__attribute__((constructor)) static void set(void) { dl_iterate_phdr(look, 0); }
