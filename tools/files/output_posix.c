/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* fopencookie: stdio forgets why a write failed */
#include "tools/files/output_temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- what is removed when the program ends early ---- */

/* Taken with all signals blocked. A handler takes it for good. */
static atomic_flag lock = ATOMIC_FLAG_INIT;
static sigset_t blocked_before; /* of whoever has the lock */

void output_begin_change(void)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    while (atomic_flag_test_and_set(&lock)) {
    }
    blocked_before = before;
}

void output_end_change(void)
{
    const sigset_t before = blocked_before;
    atomic_flag_clear(&lock);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static void end_by_signal(int number)
{
    file_output_abandon();
    raise(number); /* it is blocked until this returns, and does then what it does by default */
}

/* Every signal that ends a program by default, unless it is ignored or somebody else's. */
static int watch_signals(void)
{
    static const int others[] = { SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH, SIGKILL, SIGSTOP };
    static bool watched;
    if (watched)
        return 0;
    if (atexit(output_remove_at_exit) != 0)
        return -1;
    for (int number = 1; number <= SIGRTMAX; number++) {
        bool ends = true;
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            ends = ends && number != others[i];
        struct sigaction action;
        if (!ends || sigaction(number, NULL, &action) != 0 || (action.sa_flags & SA_SIGINFO) != 0 || action.sa_handler != SIG_DFL)
            continue;
        action = (struct sigaction){ .sa_handler = end_by_signal, .sa_flags = (int)SA_RESETHAND };
        sigfillset(&action.sa_mask);
        sigaction(number, &action, NULL);
    }
    watched = true;
    return 0;
}

/* ---- where it goes ---- */

/* `name`, as seen from the folder that holds `beside`. NULL: no memory. */
static char *beside(const char *beside, const char *name)
{
    const char *slash = strrchr(beside, '/');
    const size_t folder = *name != '/' && slash != NULL ? (size_t)(slash + 1 - beside) : 0;
    char *path = malloc(folder + strlen(name) + 1);
    if (path != NULL) {
        memcpy(path, beside, folder);
        strcpy(path + folder, name);
    }
    return path;
}

/* One link further: 1, or 0 when `*path` is none, or -1 with errno. */
static int follow_link(char **path, bool exists)
{
    struct stat status;
    char target[4097];
    if (lstat(*path, &status) != 0)
        return errno == ENOENT && !exists ? 0 : -1;
    if (!S_ISLNK(status.st_mode))
        return 0;
    /* The system has followed links to files that exist, and knows which it does not follow for whom. A link to nothing that somebody else has laid
     * in a shared folder is not followed, as the file would be made where they want it. */
    if (!exists && status.st_uid != geteuid() && status.st_uid != 0) {
        errno = EACCES;
        return -1;
    }
    const ssize_t length = readlink(*path, target, sizeof target - 1);
    if (length < 0)
        return -1;
    target[length] = '\0';
    char *next = beside(*path, target);
    if (next == NULL)
        return -1;
    free(*path);
    *path = next;
    return 1;
}

/* What `path` means when symbolic links are followed, to `*real`. 0, or -1 with errno, and nothing to free. */
static int follow_links(char **real, const char *path, bool exists)
{
    int more = 1;
    *real = strdup(path);
    if (*real == NULL)
        return -1;
    for (int links = 0; more > 0; links++) {
        more = links < 40 ? follow_link(real, exists) : -1;
        if (links == 40)
            errno = ELOOP;
    }
    if (more < 0) {
        free(*real);
        *real = NULL;
    }
    return more;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* A regular file that is there: its name, and what stays of it. */
static int keep(file_output *output, const char *path, const struct stat *status, error_text *error)
{
    struct stat found;
    output->replaces = true;
    output->owner = status->st_uid;
    output->group = status->st_gid;
    output->mode = status->st_mode & 07777;
    if (follow_links(&output->path, path, true) != 0 || lstat(output->path, &found) != 0)
        return output_fail(error);
    return is_same_file(status, &found) ? 0 : error_set(error, "cannot be written: its links do not lead to a name");
}

/* All of it, as stdio takes a part for a failure. */
static ssize_t write_all(void *to, const char *bytes, size_t size)
{
    file_output *output = to;
    size_t done = 0;
    while (done < size) {
        const ssize_t n = write(output->descriptor, bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            output->why = output->why != 0 ? output->why : n < 0 ? errno : EIO;
            break;
        }
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int close_it(void *to)
{
    return close(((file_output *)to)->descriptor);
}

/* 0, or -1 with errno, and the descriptor is closed. */
static int open_cookie(file_output *output, int descriptor)
{
    const cookie_io_functions_t functions = { .write = write_all, .close = close_it };
    output->descriptor = descriptor;
    output->stream = fopencookie(output, "wb", functions);
    if (output->stream != NULL)
        return 0;
    const int why = errno;
    close(descriptor);
    errno = why;
    return -1;
}

/* What is there, opened as `descriptor`, which stays the caller's: a file to be replaced, or what is written as it is. */
static int look_at_place(file_output *output, const char *path, int descriptor, error_text *error)
{
    struct stat status, standard;
    if (fstat(descriptor, &status) != 0)
        return output_fail(error);
    const bool is_file = S_ISREG(status.st_mode);
    const bool is_standard = is_file && fstat(STDOUT_FILENO, &standard) == 0 && is_same_file(&status, &standard);
    if (is_file && !is_standard)
        return keep(output, path, &status, error);
    /* A file that is the standard output goes on behind what has been printed. */
    if (is_standard && fflush(stdout) != 0)
        return output_fail(error);
    const int to = fcntl(is_standard ? STDOUT_FILENO : descriptor, F_DUPFD_CLOEXEC, 3);
    return to >= 0 && open_cookie(output, to) == 0 ? 0 : output_fail(error);
}

/* Opens what is there. A pipe that nobody reads is waited for, but not for ever: a command that does nothing is not what anybody wants. */
static int open_existing(const char *path)
{
    const struct timespec moment = { .tv_nsec = 20000000 };
    struct stat status;
    int descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    for (int moments = 0; moments < 250 && descriptor < 0 && errno == ENXIO && stat(path, &status) == 0 && S_ISFIFO(status.st_mode); moments++) {
        nanosleep(&moment, NULL);
        descriptor = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    }
    if (descriptor >= 0)
        fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK);
    return descriptor;
}

/* Sets the stream when what is there is to be written as it is, and the path when a file is to be made. */
static int find_place(file_output *output, const char *path, error_text *error)
{
    const int descriptor = open_existing(path);
    if (descriptor < 0 && errno == ENXIO)
        return error_set(error, "cannot be written: nobody reads from it");
    if (descriptor < 0)
        return errno == ENOENT && *path != '\0' && follow_links(&output->path, path, false) == 0 ? 0 : output_fail(error);
    const int result = look_at_place(output, path, descriptor, error);
    close(descriptor);
    return result;
}

/* ---- temporary files ---- */

int output_make_name(file_output *output)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz234567";
    char name[] = ".kvtile-................part";
    uint8_t random[16];
    if (getentropy(random, sizeof random) != 0)
        return -1;
    for (size_t i = 0; i < sizeof random; i++)
        name[8 + i] = letters[random[i] % 32];
    free(output->temporary);
    output->temporary = beside(output->path, name);
    return output->temporary != NULL ? 0 : -1;
}

/* Owner, group and mode of the file that is replaced. A group that cannot be kept is given no more than everybody has. */
static int keep_mode(const file_output *output, int descriptor)
{
    mode_t mode = output->mode;
    if (fchown(descriptor, output->owner, output->group) != 0) {
        mode &= 0777; /* not somebody else's set-user-ID program */
        if (fchown(descriptor, (uid_t)-1, output->group) != 0)
            mode &= ~(mode_t)070 | (mode & 07) << 3;
    }
    return fchmod(descriptor, mode);
}

int output_finish(file_output *output)
{
    int result = fflush(output->stream) != 0 || ferror(output->stream) ? -1 : 0;
    int why = output->why;
    if (result == 0 && output->path != NULL) {
        result = (output->replaces && keep_mode(output, output->descriptor) != 0) || fsync(output->descriptor) != 0 ? -1 : 0;
        why = errno;
    }
    if (fclose(output->stream) != 0 && result == 0)
        return -1;
    errno = why;
    return result;
}

/* ---- what others call ---- */

int file_output_open(file_output *output, const char *path, error_text *error)
{
    *output = (file_output){ 0 };
    int result = watch_signals() == 0 ? find_place(output, path, error) : error_set(error, "cannot be written: out of memory");
    if (result == 0 && output->stream == NULL) {
        const int descriptor = output_make_temporary(output);
        if (descriptor < 0 || open_cookie(output, descriptor) != 0)
            result = output_fail(error);
        if (result != 0 && descriptor >= 0)
            output_remove_temporary(output);
    }
    if (result != 0)
        output_release(output);
    return result;
}
