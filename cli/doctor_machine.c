/* See doctor.h: this machine alone. */
#include "config.h"

#include "cli/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <unistd.h>

#include "base/strbuf.h"
#include "base/sysinfo.h"
#include "cli/ui.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda.h"

enum { PATH_BYTES = 4096, NOFILE_LEAST = 4096, MEMLOCK_LEAST = 8 << 20, URING_PARAMS_BYTES = 120 };
static const uint64_t memory_least = (uint64_t)2 << 30, disk_least = (uint64_t)10 << 30;

/* The first line of a small file; "" where there is none. */
static const char *line_of(const char *path, char *buf, size_t size)
{
    FILE *f = fopen(path, "re");

    buf[0] = '\0';
    if (f && !fgets(buf, (int)size, f))
        buf[0] = '\0';
    if (f)
        fclose(f);
    buf[strcspn(buf, "\n")] = '\0';
    return buf;
}

bool doctor_is_wsl(void)
{
    char version[256];
    line_of("/proc/version", version, sizeof version);
    return strstr(version, "icrosoft") != NULL;
}

static void processor(struct doctor *d)
{
    struct strbuf levels;

    strbuf_init(&levels, 512);
    backend_cpu_levels(&levels);
    bool scalar = strcmp(strbuf_str(&levels), "scalar") == 0;
    if (scalar)
        doctor_note(d, "processor", DOCTOR_WARN, "use a processor with AVX2 (x86-64) or NEON (arm64): this one computes many times more slowly",
                    "no instructions that we have kernels for");
    else
        doctor_note(d, "processor", DOCTOR_PASS, NULL, "kernels for %s", strbuf_str(&levels));
    unsigned quota = sysinfo_cpu_quota(), cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    if (quota && quota < cpus)
        doctor_note(d, "processor time", DOCTOR_WARN, "raise the limit of the control group, or start with --threads as many",
                    "%u processors, but time for %u of them", cpus, quota);
    strbuf_fini(&levels);
}

static void memory(struct doctor *d)
{
    char all[32], available[32];
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), rest = sysinfo_memory_available();

    ui_bytes(all, sizeof all, total);
    ui_bytes(available, sizeof available, rest);
    if (rest < memory_least)
        doctor_note(d, "memory", DOCTOR_WARN, "end what takes memory, or give this machine few layers (--ram)", "%s of %s are available", available, all);
    else
        doctor_note(d, "memory", DOCTOR_PASS, NULL, "%s of %s are available", available, all);
    if (doctor_is_wsl())
        doctor_note(d, "WSL2's memory", DOCTOR_WARN,
                    "if the machine has more: memory=24GB under [wsl2] in .wslconfig in your Windows home folder, then wsl --shutdown",
                    "WSL2 has %s, by default half of what is built in", all);
}

static void disk(struct doctor *d)
{
    enum { TYPE_9P = 0x01021997, TYPE_NFS = 0x6969 };
    const char *dir = d->model_dir, *home = getenv("HOME");
    char path[PATH_BYTES], free_bytes[32];
    struct statfs st;

    if (!dir)
        snprintf(path, sizeof path, "%s", home ? home : "/");
    else
        snprintf(path, sizeof path, "%s", dir);
    if (statfs(path, &st) != 0) {
        doctor_note(d, "models' folder", DOCTOR_FAIL, "make it, or name another with --model-dir", "%.300s: %s", path, strerror(errno));
        return;
    }
    uint64_t room = (uint64_t)st.f_bavail * (uint64_t)st.f_bsize;
    ui_bytes(free_bytes, sizeof free_bytes, room);
    if ((unsigned long)st.f_type == TYPE_9P)
        doctor_note(d, "models' folder", DOCTOR_WARN, "keep models in WSL's own file system (~/models), not under /mnt/c",
                    "%.300s lies on a Windows drive, which is read at a tenth of its speed", path);
    else if ((unsigned long)st.f_type == TYPE_NFS)
        doctor_note(d, "models' folder", DOCTOR_WARN, "keep models on a disk of this machine, or let workers fetch them from each other (--cache)",
                    "%.300s is on a network file system", path);
    else if (room < disk_least)
        doctor_note(d, "models' folder", DOCTOR_WARN, "make room before fetching models", "%.300s: %s are free", path, free_bytes);
    else
        doctor_note(d, "models' folder", DOCTOR_PASS, NULL, "%.300s: %s are free", path, free_bytes);
}

static void kernel(struct doctor *d)
{
    char params[URING_PARAMS_BYTES] = {0}, line[128];

    long fd = syscall(SYS_io_uring_setup, 1, params);
#ifndef HAVE_LIBURING
    doctor_note(d, "io_uring", DOCTOR_WARN, "build with liburing-dev: models load faster", "this program was built without it");
#else
    if (fd < 0)
        doctor_note(d, "io_uring", DOCTOR_WARN, "allow it (sysctl kernel.io_uring_disabled=0; containers: the seccomp profile), or load a little slower",
                    "the kernel refuses it: %s", strerror(errno));
    else
        doctor_note(d, "io_uring", DOCTOR_PASS, NULL, "models are read by it");
#endif
    if (fd >= 0)
        close((int)fd);
    line_of("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line);
    if (strstr(line, "[never]"))
        doctor_note(d, "huge pages", DOCTOR_WARN, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as root", "they are switched off");
    else
        doctor_note(d, "huge pages", DOCTOR_PASS, NULL, "%s", line[0] ? line : "the kernel does not say");
}

static void limits(struct doctor *d)
{
    struct rlimit r;
    char bytes[32];

    if (getrlimit(RLIMIT_MEMLOCK, &r) == 0) {
        if (r.rlim_cur < MEMLOCK_LEAST)
            doctor_note(d, "RLIMIT_MEMLOCK", DOCTOR_WARN, "raise it (ulimit -l, LimitMEMLOCK=infinity in a unit): io_uring's buffers count",
                        "%s", ui_bytes(bytes, sizeof bytes, r.rlim_cur));
        else
            doctor_note(d, "RLIMIT_MEMLOCK", DOCTOR_PASS, NULL, "%s", r.rlim_cur == RLIM_INFINITY ? "no limit" : ui_bytes(bytes, sizeof bytes, r.rlim_cur));
    }
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        if (r.rlim_max < NOFILE_LEAST)
            doctor_note(d, "open files", DOCTOR_WARN, "raise it (LimitNOFILE= in a unit): every connection takes one", "%llu at most",
                        (unsigned long long)r.rlim_max);
        else
            doctor_note(d, "open files", DOCTOR_PASS, NULL, "%llu, at most %llu", (unsigned long long)r.rlim_cur, (unsigned long long)r.rlim_max);
    }
}

/* How many graphics processors of NVIDIA's the bus has. */
static unsigned nvidia_devices(void)
{
    DIR *dir = opendir("/sys/bus/pci/devices");
    struct dirent *e;
    unsigned n = 0;

    while (dir && (e = readdir(dir))) {
        char path[PATH_BYTES], vendor[32], class[32];
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/vendor", e->d_name);
        line_of(path, vendor, sizeof vendor);
        snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/class", e->d_name);
        n += strcmp(vendor, "0x10de") == 0 && strncmp(line_of(path, class, sizeof class), "0x03", 4) == 0;
    }
    if (dir)
        closedir(dir);
    return n;
}

/* What the driver says of its devices, and whether this program can use them; false: there is none that it sees. */
static bool driver_gpus(struct doctor *d)
{
    struct cuda_device there[CUDA_MAX_DEVICES];
    char bytes[32];
    struct err err;
    int n = cuda_devices(there, CUDA_MAX_DEVICES, NULL, 0, &err);

    if (n < 0)
        doctor_note(d, "GPU", DOCTOR_WARN, "docs/cuda.md says what is needed", "%s", err.text);
    for (int i = 0; i < n && i < CUDA_MAX_DEVICES; i++) {
        const struct cuda_device *g = &there[i];
        if (g->usable)
            doctor_note(d, "GPU", DOCTOR_PASS, NULL, "cuda:%u: %s (%u.%u), %s: computes where it is asked for (--cuda untested)", g->index, g->name, g->major,
                        g->minor, ui_bytes(bytes, sizeof bytes, g->memory));
        else
            doctor_note(d, "GPU", DOCTOR_WARN, "docs/cuda.md says what is needed", "cuda:%u: %s: %s", g->index, g->name, g->why);
    }
    return n != 0;
}

static void gpu(struct doctor *d)
{
    char version[256];
    unsigned n = nvidia_devices();

    if (driver_gpus(d))
        return;
    line_of("/proc/driver/nvidia/version", version, sizeof version);
    if (version[0])
        doctor_note(d, "GPU", DOCTOR_PASS, NULL, "%.200s", version);
    else if (access("/dev/dxg", F_OK) == 0)
        doctor_note(d, "GPU", DOCTOR_PASS, NULL, "through WSL2 (/dev/dxg)");
    else if (n)
        doctor_note(d, "GPU", DOCTOR_WARN, "install NVIDIA's driver", "%u of NVIDIA's on the bus, no driver", n);
    else
        doctor_note(d, "GPU", DOCTOR_PASS, NULL, "none of NVIDIA's: the processor computes");
}

static void clock_state(struct doctor *d)
{
    struct timex t = {0};
    int state = adjtimex(&t);

    if (state < 0)
        doctor_note(d, "clock", DOCTOR_PASS, NULL, "the kernel does not say whether it is synchronized");
    else if (t.status & STA_UNSYNC)
        doctor_note(d, "clock", DOCTOR_WARN, "timedatectl set-ntp true: invitations expire by the clock", "nothing synchronizes it");
    else
        doctor_note(d, "clock", DOCTOR_PASS, NULL, "synchronized, at most %.1f ms off", (double)t.maxerror / 1e3);
}

void doctor_machine(struct doctor *d)
{
    processor(d);
    memory(d);
    disk(d);
    kernel(d);
    limits(d);
    gpu(d);
    clock_state(d);
}
