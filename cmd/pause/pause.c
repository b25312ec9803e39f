/*
 * pause holds a pod's namespaces open and reaps the orphans of its PID
 * namespace. There is one in every pod, so it is freestanding: no libc, one
 * page of code, no heap. SIGTERM and SIGINT end it.
 */

#if defined(__x86_64__)
enum { nr_rt_sigprocmask = 14, nr_rt_sigtimedwait = 128, nr_wait4 = 61, nr_exit_group = 231 };

static long call4(long nr, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
enum { nr_rt_sigprocmask = 135, nr_rt_sigtimedwait = 137, nr_wait4 = 260, nr_exit_group = 94 };

static long call4(long nr, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
#else
#error "pause: add this architecture's system call numbers"
#endif

enum { sig_int = 2, sig_term = 15, sig_chld = 17, sig_block = 0, wnohang = 1, any_child = -1 };

#define MASK(sig) (1UL << ((sig) - 1))

/*
 * Signals are blocked and taken one by one with sigtimedwait: as PID 1 of a
 * PID namespace a process only gets signals it handles, and a handler would
 * need a return trampoline per architecture.
 */
void _start(void)
{
	unsigned long set = MASK(sig_int) | MASK(sig_term) | MASK(sig_chld);

	call4(nr_rt_sigprocmask, sig_block, (long)&set, 0, sizeof set);
	for (;;) {
		long sig = call4(nr_rt_sigtimedwait, (long)&set, 0, 0, sizeof set);

		if (sig == sig_int || sig == sig_term)
			call4(nr_exit_group, 0, 0, 0, 0);
		while (call4(nr_wait4, any_child, 0, wnohang, 0) > 0)
			;
	}
}
